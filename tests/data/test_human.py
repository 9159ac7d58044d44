"""Votes of people: every file of theirs, wrong ones, the download, and whose fault an error is."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest

from cifar_core.data import human
from cifar_core.data.fetch import Patience
from cifar_core.errors import ConfigError, DataError, DataNotFoundError, DownloadError

LABELS = np.random.default_rng(1).integers(0, 10, human.IMAGES)
HURRY = Patience(connect_seconds=2, stall_seconds=0.5, attempts=2, first_wait=0.01)


@pytest.fixture(scope="module")
def counts():
    """Votes as they could be: most people give the label, but for one image in a hundred."""
    rng = np.random.default_rng(2)
    shares = np.full((human.IMAGES, 10), 0.005)
    shares[np.arange(human.IMAGES), LABELS] += 0.95
    shares[::100] = np.roll(shares[::100], 1, axis=1)
    return rng.multinomial(rng.integers(47, 64, human.IMAGES), shares)


@pytest.fixture
def counts_file(counts, tmp_path):
    np.save(tmp_path / "cifar10h-counts.npy", counts)
    return tmp_path / "cifar10h-counts.npy"


def raw_lines(counts):
    """Single votes of a few images, and attention checks between them."""
    image, chosen = np.repeat(np.argwhere(counts), counts[counts > 0], axis=0).T
    table = pd.DataFrame({"annotator_id": 0, "cifar10_test_set_idx": image, "chosen_label": chosen})
    table["is_attn_check"] = 0
    checks = pd.DataFrame(
        {"annotator_id": 1, "cifar10_test_set_idx": -99999, "chosen_label": range(10), "is_attn_check": 1}
    )
    return pd.concat([table, checks]).sample(frac=1, random_state=0)


# -- Files -----------------------------------------------------------------------------------------


def test_counts_and_shares_say_the_same(counts, counts_file, tmp_path):
    votes = human.load(counts_file, LABELS)
    np.testing.assert_array_equal(votes.counts, counts)
    np.testing.assert_allclose(votes.probabilities.sum(axis=1), 1)
    np.save(tmp_path / "cifar10h-probs.npy", counts / counts.sum(axis=1, keepdims=True))
    shares = human.load(tmp_path / "cifar10h-probs.npy", LABELS)
    assert shares.counts is None
    np.testing.assert_array_equal(shares.probabilities, votes.probabilities)


@pytest.mark.parametrize("name", ["cifar10h-raw.csv", "cifar10h-raw.zip"])
def test_single_votes_are_counted(counts, tmp_path, name, monkeypatch):
    monkeypatch.setattr(human, "_CSV_ROWS", 100_003)
    text = raw_lines(counts).to_csv(index=False)
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("cifar10h-raw.csv", text)
    else:
        (tmp_path / name).write_text(text)
    np.testing.assert_array_equal(human.load_file(tmp_path / name, LABELS).counts, counts)


def test_what_is_told_of_an_image(counts, counts_file):
    votes = human.load(counts_file)
    shares = counts / counts.sum(axis=1, keepdims=True)
    for index in (0, 1, 5_000, 9_999):
        present = shares[index][shares[index] > 0]
        assert votes.entropy[index] == pytest.approx(-(present * np.log(present)).sum())
        assert votes.majority[index] == counts[index].argmax()
        table = human.votes_of(votes, index)
        assert table["votes"].sum() == counts[index].sum()
        assert table["share"].is_monotonic_decreasing
        assert table["share"].sum() == pytest.approx(1)
        assert len(table) == np.count_nonzero(counts[index])
    agreement = votes.agreement_with_label(LABELS)
    assert agreement[3] == pytest.approx(counts[3, LABELS[3]] / counts[3].sum())
    with pytest.raises(DataError, match="no image 10000"):
        human.votes_of(votes, 10_000)
    with pytest.raises(ValueError, match="read-only"):
        votes.probabilities[0, 0] = 1


def bad_arrays(counts):
    half = counts.astype(float)
    half[7] += 0.25
    negative = counts.copy()
    negative[3, 3] = -1
    empty = counts.copy()
    empty[9] = 0
    infinite = counts.astype(float)
    infinite[0, 0] = np.nan
    return {
        "shape": (counts[:500], r"int64 \(500, 10\)"),
        "turned": (counts.T, r"\(10, 10000\)"),
        "text": (np.full((10_000, 10), "cat"), "not numbers"),
        "half votes": (half, "neither whole numbers"),
        "negative": (negative, "below 0"),
        "no votes": (empty, "1 images have no votes"),
        "not a number": (infinite, "no numbers"),
    }


@pytest.mark.parametrize("kind", bad_arrays(np.ones((10_000, 10), np.int64)))
def test_arrays_that_are_no_votes_are_refused(counts, tmp_path, kind):
    array, words = bad_arrays(counts)[kind]
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=f"x.npy is not a complete file of CIFAR-10H: .*{words}"):
        human.load_file(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", b"", "not a complete file"),
        (
            "x.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (10000, 10), }",
            "complete array",
        ),
        ("x.zip", b"PK", "not a complete file"),
        ("x.csv", b"a,b\n1,2\n", "cifar10_test_set_idx, chosen_label are missing"),
        ("x.csv", b"cifar10_test_set_idx,chosen_label\n10000,1\n", "images or classes that do not exist"),
        ("x.csv", b"cifar10_test_set_idx,chosen_label\n1,cat\n", "not a complete file"),
        ("x.csv", b"cifar10_test_set_idx,chosen_label\n1,3\n", "9,999 images have no votes"),
        ("x.csv", b"", "not a complete file"),
        ("x.txt", b"1", "none of the files of CIFAR-10H"),
    ],
)
def test_files_that_are_something_else_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        human.load_file(tmp_path / name)


def test_an_array_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.full((10_000, 10), None), allow_pickle=True)
    with pytest.raises(DataError, match="not a complete file"):
        human.load_file(tmp_path / "x.npy")


def test_votes_in_another_order_are_refused(counts, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).permutation(counts))
    assert human.load_file(tmp_path / "x.npy").counts is not None  # it cannot be told without the labels
    with pytest.raises(DataError, match=r"in another order: .* for \d+% of the images"):
        human.load_file(tmp_path / "x.npy", LABELS)


# -- In the home folder ----------------------------------------------------------------------------


def test_nothing_is_there_before_somebody_asks(home):
    assert human.found() is None
    with pytest.raises(DataNotFoundError, match=r"0\.8 MB, CC BY-NC-SA 4\.0.*github\.com/jcpeterson"):
        human.load()
    with pytest.raises(DataNotFoundError, match="no file"):
        human.load(home / "nowhere.npy")
    assert not home.exists()


def test_a_local_file_is_kept_and_found_again(counts, counts_file):
    path = human.import_file(counts_file, LABELS)
    counts_file.unlink()
    assert human.found() == path
    votes = human.load(labels=LABELS)
    np.testing.assert_array_equal(votes.counts, counts)
    assert votes.origin == str(counts_file)
    human.forget()
    assert human.found() is None


def test_a_bad_file_changes_nothing(counts, counts_file, tmp_path):
    kept = human.import_file(counts_file).read_bytes()
    np.save(tmp_path / "x.npy", counts[::-1])
    with pytest.raises(DataError, match="other images"):
        human.import_file(tmp_path / "x.npy", LABELS)
    assert human.found().read_bytes() == kept
    assert [path.name for path in human.found().parent.iterdir()] == [human.OWN_FILE]
    human.found().write_bytes(kept[:200])
    with pytest.raises(DataError, match="not a complete file"):
        human.load()


# -- The download ----------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked, self.cut = content, [], 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/{human.FILE}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        """The file from where it is asked for; the first `cut` bytes only, once."""
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        content = self.server.content
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end, self.server.cut = self.server.cut or len(content), 0
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(counts_file, monkeypatch):
    """Serves the votes made here as if they were the authors'."""
    content = counts_file.read_bytes()
    monkeypatch.setattr(human, "FILE_SHA256", hashlib.sha256(content).hexdigest())
    with Server(content) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def test_the_file_has_the_size_of_ten_thousand_rows_of_ten(counts_file):
    assert counts_file.stat().st_size == human.FILE_BYTES
    assert human.FILE_URL.startswith("https://raw.githubusercontent.com/jcpeterson/cifar-10h/")
    assert len(human.FILE_SHA256) == 64


def test_they_are_fetched_once_and_found(server, counts, home):
    told = []
    path = human.fetch(urls=[server.url], patience=HURRY, progress=lambda *far: told.append(far))
    assert path.is_relative_to(home)
    assert human.found() == path
    np.testing.assert_array_equal(human.load(labels=LABELS).counts, counts)
    assert told[-1] == (human.FILE_BYTES, human.FILE_BYTES)
    human.fetch(urls=[server.url], patience=HURRY)
    assert server.asked == [None]


def test_a_cut_line_is_gone_on_with(server, counts):
    server.cut = 300_000
    human.fetch(urls=[server.url], patience=HURRY)
    assert server.asked == [None, "bytes=300000-"]
    np.testing.assert_array_equal(human.load().counts, counts)


def test_another_file_is_refused_and_its_place_stays_empty(server):
    server.content = server.content[:-1] + b"\x01"
    with pytest.raises(DownloadError, match=r"another file.*github\.com/jcpeterson.*give its path") as caught:
        human.fetch(urls=[server.url], patience=HURRY)
    assert "cifar-lab data import" not in str(caught.value)  # that is for the images
    assert human.found() is None


def test_no_network_an_odd_address_and_stopping_are_said(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"could not be downloaded.*no connection"):
        human.fetch(urls=[server.url], patience=HURRY)
    with pytest.raises(ConfigError, match="must begin with https"):
        human.fetch(urls=["file:///etc/passwd"])
    with pytest.raises(DownloadError, match="stopped"):
        human.fetch(urls=[server.url], should_stop=lambda: True)
    assert human.found() is None


def test_what_was_asked_for_last_is_used(server, counts, tmp_path):
    np.save(tmp_path / "cifar10h-probs.npy", counts / counts.sum(axis=1, keepdims=True))
    human.fetch(urls=[server.url], patience=HURRY)
    human.import_file(tmp_path / "cifar10h-probs.npy")
    assert human.load().counts is None
    human.fetch(urls=[server.url], patience=HURRY)
    assert human.load().counts is not None


# -- Whose fault ------------------------------------------------------------------------------------


def test_whose_fault_an_error_is():
    """One image of each kind by hand, in a crowd of easy ones."""
    shares = np.zeros((human.IMAGES, 10))
    shares[np.arange(human.IMAGES), LABELS] = 1
    table = pd.DataFrame({"index": np.arange(5000), "label": LABELS[:5000], "predicted": LABELS[:5000]})
    other, third = (LABELS + 1) % 10, (LABELS + 2) % 10
    cases = [  # share of people for the label, for `other`; what the model says; verdict
        (0.2, 0.8, other, "people and model disagree with the label"),
        (0.2, 0.8, third, "hard for people too"),
        (0.6, 0.4, other, "hard for people too"),
        (0.79, 0.21, third, "hard for people too"),
        (0.8, 0.2, other, "only the model fails"),
        (1.0, 0.0, third, "only the model fails"),
        (0.2, 0.8, LABELS, "only people disagree with the label"),
        (0.6, 0.4, LABELS, "hard for people, not for the model"),
        (0.8, 0.2, LABELS, "easy for both"),
    ]
    for place, (label, else_, said, _) in enumerate(cases):
        shares[place] = 0
        shares[place, LABELS[place]], shares[place, other[place]] = label, else_
        table.loc[place, "predicted"] = said[place]
    found = human.verdict(table.sample(frac=1, random_state=0), human.HumanVotes(shares, None, "here"))
    for place, (*_, expected) in enumerate(cases):
        assert found[place] == expected, cases[place]
    assert (found.drop(range(len(cases))) == "easy for both").all()
    assert found.cat.categories.tolist() == list(human.VERDICTS)
    strict = human.verdict(table, human.HumanVotes(shares, None, "here"), hard_below=0.9)
    assert strict[4] == "hard for people too"


def test_runs_on_other_images_are_refused(counts_file):
    votes = human.load(counts_file)
    table = pd.DataFrame({"index": np.arange(500), "label": 3, "predicted": 3})
    with pytest.raises(DataError, match="The run is about other images"):
        human.verdict(table, votes)
    with pytest.raises(DataError, match="no image 10400"):
        human.verdict(table.assign(index=table["index"] + 9_901), votes)
    with pytest.raises(ConfigError, match=r"in 0\.\.1; got 80"):
        human.verdict(table, votes, hard_below=80)
