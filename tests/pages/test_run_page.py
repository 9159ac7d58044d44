"""The Run page: which run, every state of one, and what can be taken away."""

import base64
import json

import numpy as np
import pytest

from cifar_core.analysis.snapshots import Snapshots
from cifar_core.data import load_dataset
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.errors import DataNotFoundError
from cifar_core.store import RunStore
from pages.runs.learning import component_data
from pages.shared import resources
from tests.pages import live_runs

PAGE = "pages/runs/run.py"
PARTS = ("Test result", "Settings", "Images and environment", "Events and log", "Files")
MAKERS = {
    "queued": live_runs.queued,
    "starting": live_runs.starting,
    "running without an epoch": live_runs.running,
    "running": lambda store: live_runs.running(store, 2, step=3),
    "failed before the first epoch": live_runs.failed,
    "failed": lambda store: live_runs.failed(store, 2),
    "finished": live_runs.finished,
    "finished, of an odd recorder": lambda store: odd(store),
}


def store():
    return resources.store()


def odd(store):
    """Finished with an accuracy and nothing else, as an import might."""
    run_id = live_runs.running(store, 1)
    store.finish(run_id, metrics={"accuracy": 0.5})
    return run_id


def texts(test):
    kinds = (test.info, test.caption, test.markdown, test.warning, test.subheader)
    words = [element.value for kind in kinds for element in kind]
    return "\n".join([*words, *(element.proto.body for element in test.main if element.type == "html")])


@pytest.mark.slow
@pytest.mark.parametrize("state", MAKERS)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_every_state_says_something(open_page, state, part):
    run_id = MAKERS[state](store())
    test = open_page(PAGE, id=run_id, part=part)
    assert not test.exception
    assert test.title[0].value == run_id
    drawn = [element for element in test.main if element.type == "bidi_component"]
    assert drawn or len(texts(test)) > 200


def test_a_run_that_found_no_images_leads_to_the_page_that_gets_them(open_page):
    def links(reason):
        test = open_page(PAGE, id=live_runs.failed(store(), reason=reason))
        found = [json.loads(e.proto.json) for e in test.main if e.type == "bidi_component" and e.proto.json]
        return [data["href"] for data in found if "Get the images" in data.get("label", "")]

    with pytest.raises(DataNotFoundError) as nowhere:
        load_dataset()
    assert links(str(nowhere.value)) == ["dataset?dataset=cifar10"]
    assert links("Out of memory. Use a smaller batch_size.") == []


def test_the_beginning_of_an_id_is_enough(open_page):
    run_id = live_runs.queued(store())
    test = open_page(PAGE, id=run_id[:-2])
    assert test.title[0].value == run_id


@pytest.mark.parametrize(
    "asked", ["nope", "<script>alert(1)</script>", "../../etc", "a" * 4000, "search-1", "\0"]
)
@pytest.mark.parametrize("filled", [False, True])
def test_an_unknown_run_is_a_calm_message_with_a_way_on(open_page, asked, filled):
    known = live_runs.failed(store()) if filled else None
    test = open_page(PAGE, id=asked)
    assert not test.exception
    assert test.title[0].value == "No such run"
    assert "<script>" not in test.info[0].value
    if filled:
        assert test.selectbox(key="run_choice").options == [known]
    else:
        assert "Nothing has been trained here yet" in test.info[1].value


@pytest.mark.slow
def test_without_an_id_one_can_choose(open_page):
    run_id = live_runs.failed(store())
    test = open_page(PAGE)
    assert not test.exception
    test.selectbox(key="run_choice").select(run_id).run()
    assert not test.exception
    assert test.title[0].value == run_id


@pytest.mark.slow
def test_what_is_missing_is_said_with_the_reason(open_page):
    run_id = live_runs.failed(store(), 2)
    assert "Resume it" in open_page(PAGE, id=run_id, part="Test result").info[0].value
    waiting = live_runs.queued(store())
    assert "No result yet" in texts(open_page(PAGE, id=waiting, part="Test result"))
    assert "Not known yet" in texts(open_page(PAGE, id=waiting, part="Images and environment"))


def test_the_result_of_a_finished_run(open_page):
    run_id = live_runs.finished(store())
    test = open_page(PAGE, id=run_id, part="Test result")
    assert not test.exception
    said = texts(test)
    accuracy = f"{100 * store().get(run_id).metrics['accuracy']:.2f} %"
    assert accuracy in said
    assert "airplane" in said
    plots = [element for element in test.main if element.type == "bidi_component"]
    drawn = [
        data["figure"] for data in (json.loads(element.proto.json) for element in plots) if "figure" in data
    ]
    assert [figure["data"][0]["type"] for figure in drawn] == ["scatter", "heatmap", "bar"]


def test_a_run_names_those_that_it_was_built_on(open_page):
    teacher = live_runs.queued(store())
    student = live_runs.queued(store(), teacher=teacher, start_from=teacher)
    said = texts(open_page(PAGE, id=student))
    assert said.count(f"](run?id={teacher}) · [side by side](runs?runs=") == 2
    assert "Learned from" in said
    assert "Made from" in said
    assert f"view=Two+runs&a={teacher}&b={student}&group=broken" in said


def test_a_clone_names_its_source(open_page):
    source, clone = live_runs.queued(store()), live_runs.queued(store())
    store().event(clone, "cloned", source)
    assert f"](run?id={source})" in texts(open_page(PAGE, id=clone))
    assert "Cloned" not in texts(open_page(PAGE, id=source))


def test_what_differs_from_preset_and_baseline(open_page):
    run_id = live_runs.queued(store(), preset="base_cnn/recommended", learning_rate=0.0042)
    said = texts(open_page(PAGE, id=run_id, part="Settings"))
    assert "Beside base\\_cnn\\/recommended" in said
    assert "Beside base\\_cnn\\/paper\\-baseline" in said
    assert "0.0042" in said


@pytest.mark.slow
def test_settings_of_another_release_are_shown_as_they_are(open_page):
    run_id = live_runs.failed(store(), 1)
    change_settings(store(), run_id, {"model": "lost_net", "from_the_future": "<b>1</b>"})
    for part in PARTS:
        test = open_page(PAGE, id=run_id, part=part)
        assert not test.exception, part
    said = texts(open_page(PAGE, id=run_id, part="Settings"))
    assert "another release" in said
    assert "from_the_future" in said
    assert "<b>1</b>" not in said


def change_settings(store: RunStore, run_id, settings):
    from sqlalchemy import create_engine, text

    engine = create_engine(store.url)
    with engine.begin() as connection:
        statement = text("UPDATE runs SET config = :config WHERE id = :id")
        connection.execute(statement, {"config": json.dumps(settings), "id": run_id})
    engine.dispose()


def test_a_damaged_file_does_not_take_the_page_down(open_page):
    run_id = live_runs.finished(store())
    (store().artifact_dir(run_id) / "predictions.npz").write_bytes(b"not a zip")
    assert not open_page(PAGE, id=run_id, part="Files").exception


def test_deleting_leads_back_to_the_list(open_page):
    run_id = live_runs.failed(store(), 1)
    test = open_page(PAGE, id=run_id)
    next(element for element in test.button if element.label == "Delete for good").click().run()
    assert not test.exception
    assert test.title[0].value == "Runs"


def test_snapshots_are_shown_live_and_a_damaged_file_in_words(open_page):
    run_id = live_runs.running(store(), 2)
    assert "Watch it learn" not in texts(open_page(PAGE, id=run_id))
    live_runs.with_snapshots(store(), run_id, 2)
    test = open_page(PAGE, id=run_id)
    assert "Watch it learn" in texts(test)
    sent = next(
        json.loads(one.proto.json) for one in test.main.get("bidi_component") if "confusion" in one.proto.json
    )
    assert (sent["epochs"], sent["live"], sent["columns"], sent["rows"]) == ([0, 1, 2], True, 12, 2)
    assert len(base64.b64decode(sent["probabilities"])) == 3 * 24 * 10
    assert np.frombuffer(base64.b64decode(sent["confusion"]), "<u2").reshape(3, 10, 10)[2, 0, 0] == 12
    store().write_artifact(run_id, "snapshots.npz", b"PK cut")
    test = open_page(PAGE, id=run_id)
    assert not test.exception
    assert "damaged" in test.warning[0].value


@pytest.mark.parametrize(("of_training", "title"), [(0, "Validation confusion matrix"), (1, "test images")])
def test_the_matrix_of_watching_says_whose_images_it_counts(of_training, title):
    """A test-selected run is validated on the test images."""
    shapes = {"epochs": (1,), "probabilities": (1, 4, 10), "confusion": (1, 10, 10), "labels": (4,)}
    shapes |= {"filters": (1, 0, 3, 3, 3), "images": (4, 32, 32, 3)}
    parts = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
    data = component_data(Snapshots(**parts, of_training=np.array(of_training, np.uint8)), CLASS_NAMES)
    assert title in data["title_matrix"]
    assert ("validates on the test images" in data["about_images"]) == bool(of_training)
