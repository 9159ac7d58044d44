"""Home in Chromium, and that no page of runs cuts a word on a laptop or a phone."""

import pytest

from cifar_core.store import RunStore
from tests.pages import live_runs
from tests.pages.board_runs import finished
from tests.pages.browsing import CUT, OVERHANG

pytestmark = pytest.mark.browser


@pytest.fixture
def runs(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as store:
        best = finished(store, 0.81, preset="alexnet/paper-tuned", protocol="held-out")
        finished(store, 0.73, preset="alexnet/paper-baseline")
        live_runs.failed(store, 2)
        live_runs.running(store, 2, step=3)
        live_runs.queued(store)
    return best


def test_a_card_opens_its_run_and_the_study_stands_whole_on_the_leaderboard(serve, visit, runs):
    with serve() as server:
        page = visit(server.url)
        card = page.locator(".card").first
        card.get_by_text("81.00 %").wait_for()
        page.locator(".card.row").filter(has_text="waiting in the queue").wait_for()
        page.locator(".card.row svg").first.wait_for()
        page.get_by_role("link", name="All of the study").click()
        page.get_by_role("heading", name="The study's seven results, and ours").wait_for()
        page.go_back()
        card.get_by_role("link", name="AlexNet").click()
        page.locator("h1", has_text=runs).wait_for()


@pytest.mark.usefixtures("runs")
def test_no_word_is_cut_on_a_laptop_or_a_phone(serve, visit):
    with serve() as server:
        for view in ("", "leaderboard", "leaderboard?part=The+study", "runs", "train?dataset=synthetic"):
            page = visit(f"{server.url}/{view}")
            for width, height in ((1280, 800), (390, 844)):
                page.set_viewport_size({"width": width, "height": height})
                page.locator(".card, .board table, .lab-table, .st-key-train_go").first.wait_for()
                page.wait_for_timeout(1500)
                assert (page.evaluate(OVERHANG), page.evaluate(CUT)) == (0, []), (view, width)
            page.close()


@pytest.mark.usefixtures("runs")
def test_stop_stays_at_the_lower_edge_of_a_phone(serve, visit):
    with serve() as server:
        page = visit(f"{server.url}/runs")
        page.set_viewport_size({"width": 390, "height": 844})
        stop = page.get_by_test_id("stMain").get_by_role("button", name="Stop", exact=True)
        stop.wait_for()
        page.wait_for_timeout(500)
        assert 780 < stop.bounding_box()["y"] < 844
