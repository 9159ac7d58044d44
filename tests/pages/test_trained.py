"""The trained network of the release, offered where nothing has been trained yet."""

import pytest

from cifar_core.errors import StoreError
from pages.shared import resources
from pages.shared.words import plain


@pytest.mark.parametrize("page", ["home/home", "try_it/try_it", "leaderboard/leaderboard", "runs/runs"])
@pytest.mark.usefixtures("quiet")
def test_a_first_visitor_opens_it_by_one_click(open_page, page):
    test = open_page(f"pages/{page}.py")
    test.button(key="add_trained").click().run()
    assert not test.exception
    assert test.title[0].value == "Try it"
    (run_id,) = resources.store().runs()["id"]
    assert test.multiselect(key="try_runs").value == [run_id]


@pytest.mark.usefixtures("quiet")
def test_a_store_that_cannot_take_it_is_said_to_be_so(open_page, monkeypatch):
    def full(_):
        raise StoreError("The disk is full: make room.")

    monkeypatch.setattr("cifar_core.analysis.study.trained.add", full)
    test = open_page("pages/home/home.py")
    test.button(key="add_trained").click().run()
    assert [error.value for error in test.error] == [plain("The disk is full: make room.")]


@pytest.mark.usefixtures("quiet")
def test_nobody_is_offered_it_who_has_runs(open_page):
    from cifar_core.settings.train_config import TrainConfig

    resources.store().create_run(TrainConfig(model="base_cnn"))
    for page in ("home/home", "leaderboard/leaderboard", "runs/runs"):
        assert not [one for one in open_page(f"pages/{page}.py").button if one.key == "add_trained"]
