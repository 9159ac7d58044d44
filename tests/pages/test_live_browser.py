"""The live view in Chromium: a run that a thread of the test writes, watched and zoomed into."""

import re
import threading

import pytest

from tests.pages import live_runs
from tests.pages.browsing import OVERHANG, PLOT

pytestmark = pytest.mark.browser

RANGES = f"() => [...{PLOT}._fullLayout.xaxis.range, ...{PLOT}._fullLayout.yaxis.range]"
SHOWN = f"() => {PLOT}.calcdata.filter((trace) => trace[0].trace.visible === true).length"
POINTS = (
    f"() => {PLOT}._fullData.filter((trace) => trace.name.endsWith(', training') && "
    "!trace.name.startsWith('study'))[0].x.length"
)


@pytest.fixture
def store(home_store):
    return home_store


@pytest.fixture
def training(store):
    """A run that goes on by itself, a step each 0.4 s, until the test asks it to stop; gives its id."""
    run_id = live_runs.running(store, 3, step=1, epochs=50)
    end = threading.Event()

    def go_on():
        epoch, step = 4, 1
        while not end.wait(0.4):
            if store.stop_requested(run_id):
                store.stopped(run_id, f"stopped on request after {epoch - 1} epochs")
                return
            step += 1
            store.record_step(run_id, epoch, step, 400, live_runs.step_metrics(epoch - 1, step / 40))

    thread = threading.Thread(target=go_on)
    thread.start()
    yield run_id
    end.set()
    thread.join()


def wait_for_updates(page, number):
    for _ in range(number):
        points = page.evaluate(POINTS)
        page.wait_for_function(f"() => ({POINTS})() > {points}", timeout=30_000)


def zoom(page):
    """With the mouse, as a person does."""
    box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
    page.mouse.up()


def test_zoom_hidden_lines_and_scroll_survive_updates(serve, visit, training):
    with serve() as server:
        page = visit(f"{server.url}/runs?runs={training}")
        page.get_by_text("Running, epoch 4 of 50").wait_for()
        page.wait_for_function(f"() => {PLOT} && {PLOT}._fullLayout")
        page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        before = page.evaluate(RANGES)
        zoom(page)
        page.wait_for_function(f"(old) => ({RANGES})()[0] > old[0] + 0.1", arg=before)
        lines = page.evaluate(SHOWN)
        page.locator(".js-plotly-plot .legendtoggle").first.click()
        page.wait_for_function(f"(all) => ({SHOWN})() < all", arg=lines, timeout=10_000)
        zoomed, kept = page.evaluate(RANGES), page.evaluate(SHOWN)
        scrolled = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTop")
        wait_for_updates(page, 3)
        assert page.evaluate(RANGES) == zoomed
        assert page.evaluate(SHOWN) == kept
        assert page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTop") == scrolled


def test_stop_is_shown_as_it_goes_and_polling_ceases(serve, visit, training, store):
    with serve() as server:
        page = visit(f"{server.url}/runs?runs={training}")
        page.get_by_test_id("stMain").get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("stopped on request after 3 epochs").first.wait_for(timeout=30_000)
        page.get_by_role("button", name=re.compile("Resume after epoch 3")).wait_for()
        assert store.get(training).state == "stopped"
        page.wait_for_timeout(1500)
        sent = []
        page.on("request", lambda request: sent.append(request.url))
        observe = (
            "() => new Promise((done) => { let seen = 0;"
            " const watcher = new MutationObserver((list) => { seen += list.length; });"
            " watcher.observe(document.querySelector('[data-testid=stMain]'),"
            " {subtree: true, childList: true, characterData: true});"
            " setTimeout(() => { watcher.disconnect(); done(seen); }, 3000); })"
        )
        assert page.evaluate(observe) == 0
        assert sent == []


def test_from_the_list_to_the_run_and_back_and_a_copied_link(serve, visit, store):
    first, second = live_runs.finished(store), live_runs.failed(store, 2)
    with serve() as server:
        page = visit(f"{server.url}/runs?runs={first}")
        main = page.get_by_test_id("stMain")
        main.get_by_role("link", name=first, exact=True).click()
        page.locator("h1", has_text=first).wait_for()
        assert page.url.endswith(f"/run?id={first}")
        page.get_by_role("tab", name="Test result").click()
        page.get_by_text("Calibration error").wait_for()
        page.go_back()
        page.locator("h1", has_text="Runs").wait_for()
        page.wait_for_url(re.compile(rf"/runs\?runs={first}"))
        copied = f"{server.url}/runs?runs={first},{second}&smoothing=0.6&log=true&focus={second}"
        other = visit(copied, color_scheme="dark")
        other.set_viewport_size({"width": 390, "height": 844})
        other.locator(".js-plotly-plot").first.wait_for()
        other.get_by_text("There is no log").wait_for()
        assert other.evaluate(OVERHANG) == 0


def test_curves_stand_at_the_top_and_ticked_rows_join_them(serve, visit, store):
    first, second = (live_runs.finished(store, seed=seed) for seed in range(2))
    with serve() as server:
        page = visit(f"{server.url}/runs")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.locator(".js-plotly-plot").first.wait_for()
        assert page.locator(".js-plotly-plot").bounding_box()["y"] < 420
        page.get_by_role("checkbox", name=f"Choose {first}").check()
        page.wait_for_url(re.compile(f"{second}(,|%2C){first}"))
        page.wait_for_function(f"() => new Set({PLOT}._fullData.map((trace) => trace.line.color)).size === 3")
        page.get_by_role("tab", name="Settings that differ").wait_for()
        page.get_by_role("button", name=f"Pin {first}").click()
        page.wait_for_function(f"() => {PLOT}._fullLayout.yaxis.title.text.includes('less {first}')")
        assert f"baseline={first}" in page.url
        page.get_by_role("button", name="Test accuracy").click()
        page.wait_for_url(re.compile("sort=-accuracy"))


def test_launch_is_in_view_without_scrolling(serve, visit):
    with serve() as server:
        page = visit(f"{server.url}/train?dataset=synthetic")
        page.set_viewport_size({"width": 1280, "height": 800})
        button = page.get_by_role("button", name="Launch", exact=True)
        button.wait_for()
        box = button.bounding_box()
        assert box["y"] + box["height"] < 800
        page.get_by_text("All settings", exact=True).click()
        page.get_by_role("textbox", name="Find a setting").wait_for()
        page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 400)")
        page.wait_for_timeout(500)
        assert 0 <= button.bounding_box()["y"] < 800
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert 0 <= button.bounding_box()["y"] < 844
        assert page.evaluate(OVERHANG) == 0
