"""The frame: the list of pages, the sidebar, the settings of the server."""

import ast
import os
import subprocess
import sys
import tomllib

import pytest

from cifar_core.base import processes
from cifar_core.plots import palette
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.workers.cluster.status import ClusterStatus, NodeStatus, write_status
from pages.shared import navigation, rebuild, resources
from pages.shared.words import message, plain

SETTINGS = tomllib.loads((navigation.ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))


def test_every_page_is_there_and_no_two_share_an_address():
    assert all((navigation.ROOT / page.file).is_file() for page in navigation.PAGES)
    assert len({page.path for page in navigation.PAGES}) == len(navigation.PAGES)


def test_the_menu_has_eight_entries():
    shown = [page.title for page in navigation.PAGES if page.in_menu]
    assert shown == ["Home", "Dataset", "Train", "Tune", "Runs", "Leaderboard", "Mistakes", "Try it"]


def test_no_file_stands_in_pages_itself():
    """Streamlit's old multipage mode would find it."""
    assert [file.name for file in (navigation.ROOT / "pages").iterdir() if file.is_file()] == []


def test_an_unknown_page_is_an_error_with_the_known_ones():
    with pytest.raises(KeyError, match="'dataset'"):
        navigation.entry("nowhere")


def test_no_page_imports_a_framework_at_its_top():
    for file in [navigation.ROOT / "app.py", *(navigation.ROOT / "pages").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"keras", "tensorflow", "jax", "torch"}, file


def test_the_shared_helpers_load_without_keras():
    code = (
        "import sys; import pages.shared.sidebar, pages.shared.figure, pages.shared.waiting;"
        "import pages.shared.server;"
        "assert not {'keras', 'tensorflow', 'sklearn', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=navigation.ROOT)


def test_the_server_keeps_to_itself():
    assert SETTINGS["server"]["address"] == "127.0.0.1"
    assert SETTINGS["server"]["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert SETTINGS["server"]["maxUploadSize"] <= 25
    assert SETTINGS["browser"]["gatherUsageStats"] is False
    assert SETTINGS["client"]["showErrorDetails"] in ("type", "none")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_background(theme):
    colours = SETTINGS["theme"][theme]
    for background in (colours["backgroundColor"], colours["secondaryBackgroundColor"]):
        assert palette.contrast(colours["textColor"], background) >= 7
        assert palette.contrast(colours["linkColor"], background) >= 4.5
        assert palette.contrast(colours["primaryColor"], background) >= 3
    assert palette.contrast("#ffffff", colours["primaryColor"]) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_palette_was_made_for_these_backgrounds(theme):
    background = SETTINGS["theme"][theme]["backgroundColor"]
    for colour in (*palette.MODEL_COLOURS.values(), *palette.CLASS_COLOURS):
        assert palette.contrast(colour, background) >= 3


def sidebar_text(test):
    return "\n".join(element.value for element in test.sidebar.markdown)


def test_the_sidebar_tells_data_device_and_that_nothing_runs(open_page):
    test = open_page()
    assert not test.exception
    text = sidebar_text(test)
    assert plain("CIFAR-10 is not here yet") in text
    assert plain(resources.device().precision) in text
    assert "Nothing" in text


def progress_text(test):
    return "\n".join(bar.proto.text for bar in test.sidebar.get("progress"))


def test_the_sidebar_shows_a_waiting_run_and_takes_it_out(open_page):
    store = resources.store()
    run_id = store.create_run(TrainConfig(epochs=4))
    test = open_page()
    assert not test.exception
    assert "waiting in the queue" in progress_text(test)
    test.sidebar.button(f"sidebar_stop_{run_id}").click().run()
    assert not test.exception
    assert store.get(run_id).state == "stopped"
    assert not test.sidebar.get("progress")


def test_the_sidebar_shows_how_far_a_run_is_and_that_it_stops(open_page):
    store = resources.store()
    run_id = store.create_run(TrainConfig(epochs=4))
    store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset={"name": "cifar10"}, parameters=10, total_steps=40)
    store.record_epoch(run_id, 1, {"accuracy": 0.3, "loss": 2.0})
    store.record_step(run_id, 2, 5, 10, {"accuracy": 0.4, "loss": 1.9})
    test = open_page()
    bar = test.sidebar.get("progress")[0].proto
    assert "epoch 2 of 4" in bar.text
    assert bar.value == pytest.approx(37)  # percent, cut to a whole one: 1.5 of 4 epochs
    test.sidebar.button(f"sidebar_stop_{run_id}").click().run()
    assert not test.exception
    assert "stopping…" in progress_text(test)
    assert test.sidebar.button(f"sidebar_stop_{run_id}").disabled


def test_the_sidebar_shows_searches_too(open_page):
    resources.store().create_search(SearchConfig(model="base_cnn", tuner="random"))
    test = open_page()
    assert not test.exception
    assert "waiting in the queue" in progress_text(test)


def test_the_sidebar_shows_a_cluster_where_a_run_is_and_what_one_waits_for(open_page):
    store, me = resources.store(), os.getpid()
    running, waiting = store.create_run(TrainConfig()), store.create_run(TrainConfig(devices=2))
    store.claim(running, pid=me, device="cluster:gpubox")
    identity = (me, processes.fingerprint(me), processes.hostname())
    nodes = [NodeStatus("gpubox", 4, 1), NodeStatus("laptop", 1, 0)]
    write_status(store, ClusterStatus("127.0.0.1:1", *identity, nodes, {waiting: "no node has 2 GPU"}))
    test = open_page()
    assert not test.exception
    assert "1 of 5 slots in use" in sidebar_text(test)
    assert "on gpubox" in progress_text(test)
    assert "no node has 2 GPU" in progress_text(test)
    parent = os.getppid()
    another = ClusterStatus("127.0.0.2:1", parent, processes.fingerprint(parent), identity[2], nodes)
    write_status(store, another)
    assert sidebar_text(test.run()).count("1 of 5 slots in use") == 2
    assert "no node has" not in progress_text(test)  # only one of them lacks it
    for pid in (me, parent):
        write_status(store, ClusterStatus("127.0.0.1:1", pid, "linux:another:1:1", identity[2], nodes))
    assert "slots" not in sidebar_text(test.run())  # their drivers were killed


def test_only_some_of_a_long_queue_are_shown(open_page):
    for seed in range(6):
        resources.store().create_run(TrainConfig(seed=seed))
    test = open_page()
    assert len(test.sidebar.get("progress")) == 4
    assert test.sidebar.caption[0].value == "and 2 more in the queue"


@pytest.mark.slow
@pytest.mark.parametrize("entry", navigation.PAGES, ids=lambda entry: entry.title)
def test_a_store_that_cannot_be_read_is_said_on_every_page_and_breaks_none(entry, open_page, home):
    home.mkdir(exist_ok=True)
    (home / "lab.db").write_bytes(b"this is no database " * 100)
    page = open_page(entry.file if entry.path else None)
    assert not page.exception, page.exception
    assert any("The records cannot be read" in text.value for text in page.sidebar.markdown)
    assert page.title or page.error, "the page itself is there"


def test_a_lost_database_is_rebuilt_by_a_button(open_page, home):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig(), claim_for=os.getpid())
        store.begin(run_id, environment={}, dataset={}, parameters=1)
        store.stopped(run_id)
    (home / "lab.db").unlink()
    page = open_page("pages/runs/runs.py")
    assert run_id in page.error[0].value.replace("\\", "")
    (button,) = [each for each in page.sidebar.button if each.label == rebuild.LABEL]
    page = button.click().run()
    assert not page.exception, page.exception
    assert not page.error
    assert resources.store().get(run_id).state == "stopped"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("Fetch it with `cifar-lab data download`.", r"Fetch it with `cifar-lab data download`\."),
        ("no *such* run", r"no \*such\* run"),
        ("one ` alone", r"one \` alone"),
        ("empty `` holds nothing", r"empty \`\` holds nothing"),
        ("`two`\n\n# <b>`lines`", r"`two` \# \<b\>`lines`"),
    ],
)
def test_an_error_shows_its_commands_as_code_and_nothing_else_formatted(error, shown):
    assert message(error) == shown
