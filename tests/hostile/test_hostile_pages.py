"""Every page with hostile addresses and hostile texts in its records: it says a word, they stay text."""

import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_core.settings.train_config import TrainConfig
from pages.shared.navigation import PAGES
from pages.shared.words import plain
from tests.hostile.hostile import LONG, TEXTS, examples, fed, in_words
from tests.pages import gallery_runs, live_runs, tune_searches

MARKERS = (
    "<img src=x onerror=document.title='owned'>",
    "<script>document.title='owned'</script>",
    "[click](javascript:document.title='owned')",
    ":material/skull: :red[red]",
    "$\\frac{1}{0}$",
    "**bold** `code`",
    "</div><h1>out",
)
"""Each would be seen to work were it not escaped; one in the name of each of the records."""
SIGNS = (
    "<img src=x",
    "<script>",
    "[click](",
    ":material/skull:",
    ":red[red]",
    "$\\frac",
    "**bold**",
    "`code`",
    "<h1>",
)
PLAIN_TEXT = {
    "selectbox",
    "multiselect",
    "text_input",
    "text_area",
    "number_input",
    "arrow_data_frame",
    "dataframe",
    "bidi_component",
    "code",
    "text",
    "file_uploader",
    "imgs",
}
"""Elements that show a text as it is, whatever it holds."""

ADDRESSES = {
    "": {},
    "dataset": ["dataset", "tab", "draw", "class", "split", "kind"],
    "train": ["model", "preset", "group", "seed"],
    "tune": ["search", "model", "preset", "tab", "train"],
    "runs": ["runs", "tab", "logx", "logy", "shown", "measure", "focus"],
    "run": ["id", "part"],
    "leaderboard": ["view", "sort", "order", "chosen", "models", "set"],
    "compare": ["runs", "shown", "a", "b", "kind", "class"],
    "gallery": ["view", "run", "image", "sure", "page", "sort", "a", "b", "class", "mistakes", "said"],
    "try": ["runs", "image", "source", "explain"],
}
FILES = {page.path: page.file for page in PAGES}
VALUES = (
    "../../../../etc/passwd",
    "-1",
    "NaN",
    "1e999",
    "9" * 400,
    "٣",
    "true",
    "",
    " ",
    ",,,",
    "%00",
    *MARKERS,
    LONG,
    "base_cnn-000000",
    "x" * 200 + "\n",
    "\u202e",
    "null",
    "[]",
    "0-0-0",
    "100-1",
)


def strings(message):
    """All texts in a protobuf message, however deep."""
    if isinstance(message, str):
        yield message
    elif hasattr(message, "ListFields"):
        for _, value in message.ListFields():
            yield from strings(value)
    elif hasattr(message, "__iter__") and not isinstance(message, bytes | dict):
        for value in message:
            yield from strings(value)


def unescaped(test):
    """(element, text) of each hostile text that markdown, HTML or a plot would take for its own."""
    found = []
    for element in [*test.main, *test.sidebar]:
        proto = getattr(element, "proto", None)
        if element.type == "bidi_component":
            found += [("plot", sign) for sign in SIGNS[:2] if sign in _figure(proto)]
        elif proto is not None and element.type not in PLAIN_TEXT:
            signs = [sign for sign in SIGNS if element.type != "html" or sign.startswith("<")]
            found += [(element.type, sign) for text in strings(proto) for sign in signs if sign in text]
    return found


def _figure(proto):
    """What a plot is told, of what Plotly would read as HTML."""
    data = json.loads(proto.json or "{}")
    return json.dumps(data.get("figure", ""), ensure_ascii=False) if isinstance(data, dict) else ""


def well(test):
    assert not test.exception, [error.value for error in test.exception]
    assert unescaped(test) == []
    shown = [
        text
        for element in test.main
        if (proto := getattr(element, "proto", None)) is not None
        for text in strings(proto)
    ]
    assert any(text.strip() for text in shown)
    assert not any("root:" in text for text in shown)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in ADDRESSES if path])
def test_any_address_gets_a_word(path, open_page, quiet, prepared):  # noqa: ARG001
    """All parameters of a page at once, each with a value that is none."""
    test = open_page(FILES[path])

    @given(values=st.lists(st.sampled_from(VALUES) | st.text(max_size=20), min_size=11, max_size=11))
    @examples(0.15)
    def feed(values):
        fed("address")
        test.query_params.clear()
        for name, value in zip(ADDRESSES[path], values, strict=False):
            test.query_params[name] = value.encode("utf-8", "replace").decode()
        well(test.run())

    feed()


@pytest.mark.slow
def test_a_parameter_twice_and_one_unheard_of(open_page, quiet, prepared):  # noqa: ARG001
    for path in ("runs", "compare", "run", "gallery"):
        fed("address")
        twice = {name: ["a", MARKERS[0]] for name in ADDRESSES[path]}
        well(open_page(FILES[path], **twice, unheard_of=LONG))


@pytest.fixture
def hostile_records(home_store, prepared, quiet):  # noqa: ARG001
    """(ids of finished runs, id of a search) whose every text is hostile."""
    runs = []
    for seed, name in enumerate(MARKERS):
        config = TrainConfig(dataset="synthetic", seed=seed, name=name)
        run_id, _ = gallery_runs.on_scenes(home_store, prepared, seed, config)
        home_store.write_artifact(run_id, "log.txt", "\n".join(MARKERS))
        runs.append(run_id)
        home_store.tag_image(prepared.fingerprint, seed, name[:64], name)
    live_runs.failed(home_store, reason=MARKERS[0], name=MARKERS[1])
    live_runs.queued(home_store, name=MARKERS[2])
    search = tune_searches.running(home_store, done=3, name=MARKERS[0])
    tune_searches.fail_trial(home_store, search, 4, reason=MARKERS[1])
    return runs, search


VISITS = {
    "": [{}],
    "runs": [
        *({"tab": tab} for tab in ("Curves", "Speed and rate", "Log")),
        {"shown": "Mean over seeds"},
    ],
    "run": [
        {"part": part}
        for part in ("Curves", "Test result", "Settings", "Images and environment", "Events and log", "Files")
    ],
    "leaderboard": [{"view": view} for view in ("Ranking", "Tuned against baseline", "Accuracy and cost")],
    "compare": [{"shown": shown} for shown in ("Curves", "Images")],
    "gallery": [{"view": view} for view in ("One run", "Two runs", "Hardest", "Doubts", "Summary")],
    "tune": [{"tab": tab} for tab in ("Progress", "Curves", "What mattered", "Trials", "Log")],
    "train": [{}],
    "dataset": [{}],
}


@pytest.mark.slow
def test_hostile_texts_are_shown_as_text_on_every_page(open_page, hostile_records):
    runs, search = hostile_records
    names = {
        "runs": {"runs": ",".join(runs[:4])},
        "compare": {"runs": ",".join(runs[:4])},
        "run": {"id": runs[0]},
        "tune": {"search": search},
        "gallery": {"run": runs[0]},
    }
    for path, parameters in ((path, one) for path, several in VISITS.items() for one in several):
        fed("hostile text")
        well(open_page(FILES[path], **names.get(path, {}), **parameters))
    for run in runs[1:]:
        fed("hostile text")
        test = open_page(FILES["run"], id=run)
        well(test)
        shown = "\n".join(text for element in test.main for text in strings(getattr(element, "proto", "")))
        assert plain(MARKERS[runs.index(run)]) in shown  # not left out either


@given(text=st.text(max_size=60) | st.sampled_from(TEXTS))
@examples()
def test_plain_leaves_nothing_to_markdown(text):
    fed("plain")
    import re
    import string

    shown = plain(text)
    assert "\n" not in shown
    unguarded = re.sub(r"\\[" + re.escape(string.punctuation) + "]", "", shown)
    assert not set(unguarded) & set(string.punctuation)
    assert re.sub(r"\\([" + re.escape(string.punctuation) + "])", r"\1", shown) == " ".join(text.split())


@given(
    path=st.sampled_from(VALUES) | st.text(max_size=30),
    name=st.sampled_from(["model.keras", "../x", "/etc/passwd", "..", ""]),
)
@examples()
def test_no_run_and_no_file_name_leads_out_of_the_artifacts(path, name, tmp_path_factory):
    from cifar_core.errors import StoreError
    from cifar_core.store import RunStore

    fed("path")
    home = tmp_path_factory.getbasetemp() / "one-home"
    with RunStore(f"sqlite:///{home}.sqlite") as store:
        for ask in (store.artifact, store.artifact_dir, store.predictions, store.get, store.write_artifact):
            arguments = {store.artifact: (path, name), store.write_artifact: (path, "../x", b"x")}.get(
                ask, (path,)
            )
            try:
                ask(*arguments)
            except StoreError as error:
                in_words(error)
                continue
            assert ask in (store.artifact_dir,)
            assert store.artifact_dir(path).resolve().parent == store.artifacts_root.resolve()


@pytest.mark.browser
def test_nothing_runs_in_a_browser(serve, visit, home_store, prepared):
    """The most visited pages with hostile names, and the same in the address."""
    runs = []
    for seed, name in enumerate(MARKERS):
        config = TrainConfig(dataset="synthetic", seed=seed, name=name)
        runs.append(gallery_runs.on_scenes(home_store, prepared, seed, config)[0])
        home_store.tag_image(prepared.fingerprint, seed, name[:64], name)
    with serve() as server:
        for address in (
            f"run?id={runs[0]}",
            f"run?{urllib.parse.urlencode({'id': MARKERS[0]})}",
            f"runs?runs={','.join(runs[:3])}",
            f"compare?runs={','.join(runs[:3])}",
            "leaderboard",
            f"gallery?run={runs[0]}",
            f"gallery?{urllib.parse.urlencode({'run': MARKERS[1], 'image': MARKERS[0]})}",
        ):
            fed("browser")
            page = visit(f"{server.url}/{address}")
            page.get_by_test_id("stMain").get_by_role("heading").first.wait_for()
            page.wait_for_timeout(600)
            assert page.title() != "owned"
            assert page.evaluate("() => document.querySelectorAll('img[src=x], main script').length") == 0
            assert (
                page.evaluate("() => [...document.links].filter(a => a.href.startsWith('javascript')).length")
                == 0
            )
