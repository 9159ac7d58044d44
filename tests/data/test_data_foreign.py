"""Data as people really have it: other archives, a step away from the right one, pointers, pasted paths."""

import bz2
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar_core.base.paths import as_pasted
from cifar_core.data import dataset_status, import_cifar10, load_dataset, locate, reader
from cifar_core.data.batches import OFFICIAL_MD5
from cifar_core.data.unpickle import safe_loads
from cifar_core.errors import DataError, DataNotFoundError, UnsafePickleError
from tests.data.cifar_files import ROWS, batch_dict, stored_labels, write_archive

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 31035704\n" % (b"0" * 64)
PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"


def archive(path, *names):
    """An archive of tiny files of these names, by the suffix of `path`."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                packed.writestr(name, b"x")
        return path
    with tarfile.open(path, "w:gz") as packed:
        for name in names:
            packed.addfile(tarfile.TarInfo(name))
    return path


OTHERS = {
    "MATLAB": ["cifar-10-batches-mat/data_batch_1.mat", "cifar-10-batches-mat/test_batch.mat"],
    "CIFAR-100": ["cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"],
    "CIFAR-100, another": ["cifar-100-binary/train.bin", "cifar-100-binary/fine_label_names.txt"],
    "fast.ai": [f"cifar10/test/airplane/{n:05}.png" for n in range(400)],
    "Kaggle": ["train.7z", "test.7z", "trainLabels.csv"],
    "Hugging Face": ["plain_text/train-00000-of-00001.parquet"],
    "other archives, which have to be unpacked": ["download/cifar-10-python.tar.xz"],
    "MNIST": ["train-images-idx3-ubyte"],
    "NumPy arrays": ["x_train.npy", "y_train.npy"],
    "TFRecord": ["3.0.2/cifar10-test.tfrecord-00000-of-00001"],
    "notes.txt, readme.md": ["notes.txt", "readme.md"],
}


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_archives_are_named_alike_by_import_and_load(tmp_path, kind, suffix):
    path = archive(tmp_path / f"x{suffix}", *OTHERS[kind])
    for read in (import_cifar10, lambda given: load_dataset(path=given)):
        with pytest.raises(DataNotFoundError, match=f"x{suffix} holds .*{kind}"):
            read(path)


@pytest.mark.parametrize("kind", ["MATLAB", "CIFAR-100", "fast.ai", "Kaggle"])
def test_unpacked_folders_of_other_datasets_are_named(tmp_path, kind):
    for name in OTHERS[kind][:3]:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).touch()
    with pytest.raises(DataNotFoundError, match=kind):
        load_dataset(path=tmp_path / "x")


def test_cifar_100s_batches_under_cifar_10s_names_are_named(python_folder, linked):
    wrong = pickle.dumps({"data": np.zeros((ROWS, 3072), np.uint8), "fine_labels": stored_labels(0)})
    with pytest.raises(DataError, match="belongs to CIFAR-100"):
        load_dataset(path=linked(python_folder, data_batch_1=wrong))


@pytest.fixture(scope="module")
def same(python_folder):
    return load_dataset(path=python_folder).fingerprint


def zipped(path, folder):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for file in folder.iterdir():
            packed.write(file, f"{folder.name}/{file.name}")
    return path


def test_one_step_away_is_read(tmp_path, python_folder, binary_folder, same):
    """A plain .tar as Safari leaves it, a .zip as Kaggle has it, folders too deep, a single batch."""
    with tarfile.open(tmp_path / "cifar-10-python.tar", "w") as packed:
        packed.add(python_folder, python_folder.name)
    (tmp_path / "x.tar.bz2").write_bytes(bz2.compress((tmp_path / "cifar-10-python.tar").read_bytes(), 1))
    deep = tmp_path / "cifar-10-python (1)" / "cifar-10-python"
    deep.mkdir(parents=True)
    (deep / python_folder.name).symlink_to(python_folder)
    (tmp_path / "beside").mkdir()
    zipped(tmp_path / "beside" / "cifar-10-binary (1).zip", binary_folder)
    for path in (
        tmp_path / "cifar-10-python.tar",
        tmp_path / "x.tar.bz2",
        zipped(tmp_path / "archive.zip", python_folder),
        deep.parent,
        tmp_path / "beside",
        python_folder / "data_batch_1",
    ):
        assert load_dataset(path=path).fingerprint == same, path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (bytes(10_240), "an empty file"),
        (b"PK\x05\x06" + bytes(18), "is an empty .zip archive.*cifar-lab data download"),
        (b"MATLAB 5.0 MAT-file", "is a MATLAB file.*cifar-lab data download"),
    ],
)
def test_files_without_content_or_of_another_kind_are_named_with_what_to_do(tmp_path, content, words):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_dataset(path=tmp_path / "x.tar")


def test_a_project_with_folders_train_and_test_is_not_called_cifar_100(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataNotFoundError, match="it contains test, train"):
        load_dataset(path=tmp_path)


def test_a_single_batch_alone_says_what_is_missing(tmp_path, python_folder):
    shutil.copy(python_folder / "data_batch_2", tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1, data_batch_3.* missing"):
        load_dataset(path=tmp_path / "data_batch_2")


def test_damaged_and_rare_zips_are_refused_in_words(tmp_path, python_folder):
    whole = zipped(tmp_path / "x.zip", python_folder).read_bytes()
    cases = {
        "whole archive": whole[:-1000],
        "not a whole": whole[: len(whole) // 2] + bytes(50) + whole[len(whole) // 2 + 50 :],
        "encrypted": whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    }
    for words, content in cases.items():
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(DataError, match=words):
            load_dataset(path=tmp_path / "x.zip")


def test_a_zip_bomb_is_refused_by_its_header(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr("data_batch_1", bytes(130 * 2**20))
    with pytest.raises(DataError, match="holds 'data_batch_1' of 136,314,880 bytes"):
        load_dataset(path=tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, "Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/MD5E-s1--a", "git annex get"),
        (PAGE, "web page"),
    ],
)
def test_pointers_and_web_pages_are_named_with_the_remedy(tmp_path, python_folder, linked, content, words):
    with pytest.raises(DataError, match=f"data_batch_3 .*{words}"):
        import_cifar10(linked(python_folder, data_batch_3=content))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_dataset(path=tmp_path / "cifar-10-python.tar.gz")


# -- Damaged copies are passed over -----------------------------------------------------------------


@pytest.fixture
def keras_cache(tmp_path):
    (tmp_path / "keras-home" / "datasets").mkdir(parents=True)
    return tmp_path / "keras-home" / "datasets"


@pytest.mark.parametrize("verify", [False, True])
def test_an_unpacking_that_broke_off_is_damaged_and_the_archive_beside_it_is_read(
    keras_cache, python_folder, python_archive, linked, same, verify
):
    short = dict.fromkeys((file.name for file in python_folder.iterdir()), b"\x80\x02}q")
    linked(python_folder, keras_cache / "cifar-10-batches-py-target" / python_folder.name, **short)
    status = dataset_status(verify=verify)
    assert not status.found
    assert "data_batch_1 is damaged (4 bytes" in dict(status.searched)[f"Keras cache: {keras_cache}"]
    with pytest.raises(DataNotFoundError, match=r"is damaged \(4 bytes where a whole one has at least"):
        load_dataset()
    os.link(python_archive, keras_cache / "cifar-10-batches-py-target_archive")
    status = dataset_status(verify=verify)
    assert status.origin.endswith("_archive")
    assert "data_batch_1 is damaged" in status.searched[1][1]
    assert load_dataset().fingerprint == same


def test_a_damage_that_only_reading_finds_is_passed_over_too(home, keras_cache, python_folder, linked, same):
    good = (python_folder / "data_batch_2").read_bytes()
    damaged = linked(python_folder, home / "data" / python_folder.name, data_batch_2=bytes(len(good)))
    linked(python_folder, keras_cache / "cifar-10-batches-py")
    assert dataset_status().origin == str(damaged)
    status = dataset_status(verify=True)
    assert "data_batch_2" in status.searched[0][1]
    assert status.source == "Keras cache"
    locate._known_damaged.clear()
    locate._mark_file().unlink()
    data = load_dataset()
    assert (data.fingerprint, data.source) == (same, "Keras cache")
    assert dataset_status().source == "Keras cache"
    (damaged / "data_batch_2").unlink()
    (damaged / "data_batch_2").write_bytes(good)
    assert dataset_status().origin == str(damaged)


def test_a_damage_that_another_process_finds_is_known_to_the_app(home, python_folder, linked):
    """The app's process would go on offering the copy, and each training would fail."""
    damaged = linked(python_folder, home / "data" / python_folder.name, data_batch_2=b"\0" * 500_000)
    marks = home / "damaged-data.json"
    find = (
        "from cifar_core.data import batches, reader, dataset_status as status; batches.ROWS = reader.ROWS = "
    )
    subprocess.run([sys.executable, "-c", f"{find}{ROWS}; status(verify=True)"], check=True)
    assert not dataset_status().found
    with pytest.raises(DataNotFoundError, match="data_batch_2"):
        load_dataset()
    os.utime(marks, (0, 0))
    assert dataset_status().found, "an hour later it is read again"
    os.utime(marks)
    for content in (b"{", b"[1]", b"[[[[1]], 2]]", b"\xff", b"null"):
        marks.write_bytes(content)
        assert dataset_status().found
    marks.unlink()
    marks.mkdir()
    assert not dataset_status(verify=True).found
    assert (damaged / "data_batch_2").exists()


@pytest.mark.parametrize("protocol", [None, 2])
@pytest.mark.parametrize("verify", [False, True])
def test_a_batch_that_is_a_copy_of_another_is_damage(home, tmp_path, python_folder, linked, verify, protocol):
    """It was read, and a network tested on images that it had learned by heart; so is one pickled again."""
    test = (python_folder / "data_batch_1").read_bytes()
    if protocol:
        test = pickle.dumps({**batch_dict(0), "batch_label": "testing batch"}, protocol)
    folder = linked(python_folder, home / "data" / python_folder.name, test_batch=test)
    if verify:
        assert "test_batch has the content of data_batch_1" in str(dataset_status(verify=True).searched)
    with pytest.raises(DataError, match="test_batch has the content of data_batch_1"):
        load_dataset(path=folder)
    with pytest.raises(DataError, match=r"(test_batch|data_batch_1) has the content of"):
        load_dataset(path=write_archive(tmp_path / "a.tar.gz", folder))
    elsewhere = linked(python_folder, tmp_path / "elsewhere", test_batch=test)
    shutil.rmtree(home)
    with pytest.raises(DataError, match="test_batch has the content of data_batch_1"):
        import_cifar10(elsewhere)


def test_published_batches_under_the_names_of_others_are_damage(python_folder, monkeypatch):
    sums = {name: reader._md5((python_folder / name).read_bytes()) for name in OFFICIAL_MD5}
    published = {**sums, "test_batch": sums["data_batch_5"], "data_batch_5": sums["test_batch"]}
    monkeypatch.setattr(reader, "OFFICIAL_MD5", published)
    with pytest.raises(DataError, match="data_batch_5 has the content of test_batch"):
        load_dataset(path=python_folder)


def test_a_truncated_archive_is_passed_over(home, keras_cache, python_folder, python_archive, linked, same):
    (home / "data").mkdir(parents=True)
    (home / "data" / "cifar-10-python.tar.gz").write_bytes(python_archive.read_bytes()[:-5000])
    linked(python_folder, keras_cache / "cifar-10-batches-py")
    assert load_dataset().fingerprint == same


@pytest.mark.parametrize("variable", ["KERAS_HOME", "HOME", None])
def test_every_cache_of_keras_is_searched(tmp_path, monkeypatch, python_folder, linked, variable):
    """That of the variable, the usual one, and the temporary one for homes that are not writable."""
    base = {"KERAS_HOME": "keras-home", "HOME": "user/.keras", None: "temporary/.keras"}[variable]
    folder = linked(python_folder, tmp_path / base / "datasets" / "cifar-10-batches-py")
    assert dataset_status().origin == str(folder)
    monkeypatch.delenv("KERAS_HOME")
    assert dataset_status().found == (variable != "KERAS_HOME")


# -- Only what would run code is unsafe ----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_flipped_bytes_are_damaged_and_never_unsafe(protocol):
    data = pickle.dumps({**batch_dict(0), "labels": [1, 2, 3], "data": np.zeros((2, 4), np.uint8)}, protocol)
    for place in range(len(data)):
        for flip in (0x01, 0x20):
            changed = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
            try:
                safe_loads(changed, "data_batch_1")
            except UnsafePickleError as error:
                raise AssertionError(f"byte {place} flipped by {flip}: {error}") from error
            except DataError:
                pass


@pytest.mark.parametrize(
    "name", [b"os\nsystem", b"builtins\nexec", b"numpy.testing\nrundocs", b"builtins\neval"]
)
def test_what_would_run_code_is_unsafe(name):
    for data in (b"c" + name + b"\n(S'x'\ntR.", b"(S'x'\ni" + name + b"\n."):
        with pytest.raises(UnsafePickleError, match="Nothing of it was run"):
            safe_loads(data, "data_batch_1")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["<i8", ">i8", "i4", "<u2", "u1", "i1"])
def test_labels_as_an_array_of_integers_are_read(python_folder, linked, protocol, kind):
    labels = np.array(stored_labels(0), kind)
    content = pickle.dumps({**batch_dict(0), "labels": labels}, protocol)
    data = load_dataset(path=linked(python_folder, data_batch_1=content))
    assert data.y_train[:ROWS].tolist() == stored_labels(0)


def test_labels_as_numpy_integers_a_column_or_a_tuple_are_read(python_folder, linked, tmp_path):
    as_tuple, as_array = tuple(stored_labels(0)), np.array(stored_labels(0))
    for place, labels in enumerate((list(as_array), as_array[:, None], as_tuple)):
        folder = linked(
            python_folder,
            tmp_path / str(place),
            data_batch_1=pickle.dumps({**batch_dict(0), "labels": labels}, 2),
        )
        assert load_dataset(path=folder).y_train[:ROWS].tolist() == stored_labels(0)


# -- Paths as people paste them ----------------------------------------------------------------------


@pytest.fixture
def pasted(tmp_path, monkeypatch):
    """A folder with a space in its name, in the home folder and in the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        '"{}"',
        "'{}'",
        "  {}\n",
        "“{}”",
        "{}/",
        "file://{}",
        "file://localhost{}",
        "~/my data/cifar-10-batches-py",
        '"~/my data/cifar-10-batches-py/"',
        "$HOME/my data/cifar-10-batches-py",
        "my data/cifar-10-batches-py",
        "my data\\cifar-10-batches-py",
        "my\\ data/cifar-10-batches-py",
        ".\\my data\\cifar-10-batches-py\\",
        "\u202a{}",
        "\ufeff<{}>\u200b",
        "my%20data/cifar-10-batches-py",
        '"{}",',
    ],
)
def test_pasted_paths_are_understood(pasted, written, monkeypatch):
    text = written.format(pasted)
    assert as_pasted(text) == pasted
    monkeypatch.setenv("CIFAR_LAB_DATA", text)
    assert dataset_status().searched[0][0] == f"CIFAR_LAB_DATA: {pasted}"


def test_escapes_of_an_address_are_understood_and_names_that_exist_are_taken_as_written(pasted, tmp_path):
    assert as_pasted(pasted.as_uri()) == pasted
    assert as_pasted(Path(pasted.as_uri())) == pasted  # as a command line's argument type has it
    odd = tmp_path / "'odd\\name '"
    odd.mkdir()
    assert as_pasted(str(odd)) == odd
    assert as_pasted("~nobody-of-this-name/x").name == "x"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "web address.*data download.*url",
        ),
        ("s3://bucket/cifar-10-python.tar.gz", "web address.*data download.*url"),
        ("C:\\Users\\me\\cifar-10-batches-py", "path of Windows"),
        ("file:///C:/Users/me/cifar-10-batches-py", "path of Windows"),
        ("\\\\server\\share\\cifar", "path of Windows"),
        ("%USERPROFILE%\\cifar", "path of Windows"),
        ("$NO_SUCH_VARIABLE/cifar", r"no environment variable \$NO_SUCH_VARIABLE is set"),
        ("a\0b", "not a valid file name"),
    ],
)
def test_what_is_no_path_of_this_machine_is_named(written, words):
    with pytest.raises(DataNotFoundError, match=words):
        load_dataset(path=written)


# -- The variable that wins --------------------------------------------------------------------------


def test_a_variable_that_wins_over_an_import_is_named(tmp_path, home, monkeypatch, python_folder):
    assert locate.overruling() == ""
    monkeypatch.setenv("CIFAR_LAB_DATA", str(home / "data"))
    assert locate.overruling() == ""
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "typo"))
    assert "`unset CIFAR_LAB_DATA`" in locate.overruling()
    import_cifar10(write_archive(tmp_path / "x.tar.gz", python_folder))
    with pytest.raises(DataNotFoundError, match=r"CIFAR_LAB_DATA is set.*unset CIFAR_LAB_DATA"):
        load_dataset()
