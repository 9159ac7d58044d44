"""Messages of the browser: what the page is told, and that nothing happens before a click."""

import json

import pytest

from pages.shared import resources
from tests.pages import live_runs

RECORDER = """
window.asked = 0; window.shown = [];
class Fake {
  static permission = "default";
  static async requestPermission() { window.asked += 1; Fake.permission = "granted"; return "granted"; }
  constructor(title, options) { window.shown.push([title, options.body]); }
  close() {}
}
window.Notification = Fake;
"""


def told(test):
    found = [json.loads(element.proto.json) for element in test.sidebar if element.type == "bidi_component"]
    return next(data for data in found if "news" in data)


def test_ends_that_this_session_saw_coming_are_news(open_page):
    store = resources.store()
    live_runs.finished(store)
    run_id, other = live_runs.running(store, 1), live_runs.running(store, 1, seed=1)
    test = open_page("pages/runs/runs.py")
    assert not test.exception
    assert told(test) == {"news": [], "offer": True}
    store.fail(run_id, "The disk is full.")
    store.request_stop(other)
    store.stopped(other)
    test.run()
    assert told(test)["offer"] is False
    assert [news["text"] for news in told(test)["news"]] == [f"{run_id} failed: The disk is full."]
    assert len(told(test.run())["news"]) == 1


@pytest.mark.browser
def test_permission_is_asked_for_by_a_click_alone_and_then_an_end_is_told(serve, visit, home_store):
    first, second = (live_runs.running(home_store, 1, seed=seed) for seed in range(2))
    with serve() as server:
        page = visit("about:blank")
        page.add_init_script(RECORDER)
        page.goto(f"{server.url}/runs")
        button = page.get_by_role("button", name="Notify me when runs end")
        button.wait_for()
        home_store.fail(first, "The disk is full.")
        page.wait_for_function("() => cifarLabTold.size === 1")
        assert page.evaluate("[asked, shown.length]") == [0, 0]
        button.click()
        page.get_by_role("button", name="Notifications on").wait_for()
        home_store.fail(second, "Out of memory.")
        page.wait_for_function("() => shown.length === 1")
        assert page.evaluate("shown[0]") == [f"{second} failed", f"{second} failed: Out of memory."]
        assert page.evaluate("asked") == 1
