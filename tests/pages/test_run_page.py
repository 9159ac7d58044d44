"""The Run page: which run, every state of one, and what can be taken away."""

import json

import pytest

from cifar_core.store import RunStore
from pages.shared import resources
from tests.pages import live_runs

PAGE = "pages/runs/run.py"
PARTS = ("Curves", "Test result", "Settings", "Images and environment", "Events and log", "Files")
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
    assert "No result yet" in open_page(PAGE, id=waiting, part="Test result").info[0].value
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
    kinds = [json.loads(element.proto.json)["figure"]["data"][0]["type"] for element in plots]
    assert kinds == ["heatmap", "bar"]


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
