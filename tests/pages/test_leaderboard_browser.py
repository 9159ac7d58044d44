"""The leaderboard in a real browser: order and choice by the table's own controls, a row's run and back."""

import re

import pytest

from cifar_core.store import RunStore
from tests.pages.board_runs import finished
from tests.pages.browsing import OVERHANG

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> **b**"


@pytest.fixture
def runs(home):  # noqa: ARG001 - the home must be the test's own
    with RunStore() as store:
        finished(store, 0.66, preset="base_cnn/paper-baseline", name=HOSTILE)
        baseline = finished(store, 0.73, preset="alexnet/paper-baseline", name=HOSTILE)
        tuned = finished(store, 0.81, preset="alexnet/paper-tuned", protocol="held-out")
    return baseline, tuned


def test_to_a_run_and_back_with_the_filters_kept(serve, visit, runs):
    baseline, tuned = runs
    with serve() as server:
        page = visit(f"{server.url}/leaderboard?models=AlexNet")
        table = page.locator(".board table")
        table.get_by_role("button", name="Training").click()
        page.wait_for_url(re.compile("sort=training_s"))
        table.get_by_role("checkbox", name="Choose AlexNet").first.check()
        page.wait_for_url(re.compile("chosen="))
        page.get_by_role("link", name="Compare 1 row").wait_for()
        before = page.url
        assert table.locator("tbody tr").count() == 2

        table.get_by_role("link", name="AlexNet").first.click()
        page.wait_for_url(re.compile(r"/run\?id=alexnet-"))
        page.get_by_role("heading", name="alexnet-").first.wait_for()
        page.go_back()
        page.wait_for_url(re.compile("/leaderboard"))
        page.get_by_role("link", name="Compare 1 row").wait_for()
        assert page.url == before
        assert table.locator("tbody tr").count() == 2
        assert table.get_by_role("columnheader", name="Training").get_attribute("aria-sort") == "descending"

        # Filters that were clicked come back as those of the address do.
        page.get_by_role("button", name="tuned", exact=True).click()
        page.wait_for_url(re.compile("variants=tuned"))
        page.get_by_role("radio", name="settings").or_(
            page.get_by_role("button", name="settings", exact=True)
        ).first.click()
        page.wait_for_url(re.compile("by=settings"))
        table.get_by_text("settings ").first.wait_for()
        filtered = page.url
        assert table.locator("tbody tr").count() == 1
        table.get_by_role("link", name="AlexNet").click()
        page.wait_for_url(re.compile(rf"/run\?id={tuned}"))
        page.get_by_role("heading", name="alexnet-").first.wait_for()
        page.go_back()
        page.wait_for_url(re.compile("/leaderboard"))
        table.get_by_text("settings ").first.wait_for()
        assert page.url == filtered
        assert table.locator("tbody tr").count() == 1

        page.get_by_role("tab", name="Tuned against baseline").click()
        page.get_by_text("Tuned is better.").wait_for()
        page.get_by_role("link", name="What it fixed and broke").click()
        page.get_by_text("B is better.").wait_for()
        page.go_back()
        page.get_by_text("Tuned is better.").wait_for()
        page.go_forward()
        page.get_by_text("B is better.").wait_for()
        assert baseline in page.url
        assert page.title() != "broken"


@pytest.mark.usefixtures("runs")
def test_an_address_from_before_the_tabs_were_named_part_still_leads_there(serve, visit):
    with serve() as server:
        page = visit(f"{server.url}/leaderboard?view=Tuned+against+baseline")
        page.get_by_text("Tuned is better.").wait_for()
        page.close()


@pytest.mark.usefixtures("runs")
def test_nothing_is_cut_off_on_a_phone(serve, visit, runs):
    with serve() as server:
        views = ("leaderboard", "leaderboard?view=Tuned+against+baseline", f"runs?runs={','.join(runs)}")
        for view in views:
            page = visit(f"{server.url}/{view}")
            page.set_viewport_size({"width": 390, "height": 800})
            page.locator(".board table, .js-plotly-plot").first.wait_for()
            page.wait_for_timeout(600)
            assert page.evaluate(OVERHANG) <= 1
            page.close()
