"""A search from the Tune page to its end, stopped and gone on with on the way, in a real browser."""

import re

import pytest

from tests.pages import tune_searches
from tests.pages.browsing import OVERHANG, PLOT, fill, pick

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MINUTES = 240_000
"""Milliseconds: a busy machine may take long; a quiet one takes some twenty seconds."""


@pytest.fixture
def store(home_store):
    return home_store


def test_a_search_is_launched_stopped_resumed_and_ends(serve, visit, store):
    with serve() as server:
        page = visit(f"{server.url}/tune?model=base_cnn&preset=own")
        main = page.get_by_test_id("stMain")
        main.get_by_role("button", name="Use synthetic scenes").click()
        main.get_by_text("Drawn scenes, not photographs").wait_for()
        pick(page, "Random")
        fill(page, "Max trials", "3")
        fill(page, "Max epochs (epochs)", "2")
        pick(page, "Data")
        main.get_by_text("Set train limit").click()
        fill(page, "Train limit (images)", "200")
        main.get_by_text("Train best").click()
        main.get_by_text("160 images to train on").wait_for()
        main.get_by_role("button", name="Launch the search").dblclick()
        page.wait_for_url(re.compile(r"/tune\?search=search-"))
        address = page.url
        main.get_by_text(re.compile("Running, trial 1 of 3")).wait_for(timeout=MINUTES)
        main.get_by_role("button", name="Stop after this trial").click()
        main.get_by_role("button", name="Stops after this trial").wait_for()
        main.get_by_text("stopped on request after 1 trials").first.wait_for(timeout=MINUTES)
        assert store.searches()["trials_done"].tolist() == [1]
        main.get_by_role("button", name="Resume after trial 1").click()
        main.get_by_text("Finished", exact=True).wait_for(timeout=MINUTES)
        assert store.searches()["state"].tolist() == ["finished"]
        assert store.trials(store.searches()["id"][0])["epochs_done"].tolist() == [2, 2, 2]
        main.get_by_role("tab", name="Trials").click()
        main.get_by_text("All trials", exact=True).first.wait_for()
        page.wait_for_url(re.compile("tab=Trials"))
        copied = visit(page.url)
        copied.get_by_text("All trials", exact=True).first.wait_for()
        assert page.url.startswith(address)


def test_trials_arrive_while_zoom_stays_and_polling_ceases(serve, visit, store):
    search_id = tune_searches.running(store, 5, 1, tuner="random", max_trials=8)
    zoomed = f"() => [...{PLOT}._fullLayout.xaxis.range]"
    points = f"() => {PLOT}.data.find((trace) => trace.name === 'trials').x.length"
    with serve() as server:
        page = visit(f"{server.url}/tune?search={search_id}")
        page.wait_for_function(f"() => {PLOT} && {PLOT}._fullLayout")
        before = page.evaluate(zoomed)
        box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
        page.mouse.up()
        page.wait_for_function(f"(old) => ({zoomed})()[0] > old[0] + 0.1", arg=before)
        kept, shown = page.evaluate(zoomed), page.evaluate(points)
        store.record_trial(search_id, "0006", state="finished", score=0.9, duration_s=3.0)
        page.wait_for_function(f"(old) => ({points})() > old", arg=shown)
        page.get_by_text("The best so far: trial 6").wait_for()
        assert page.evaluate(zoomed) == kept
        store.stopped(search_id, "stopped on request after 6 trials")
        page.get_by_role("button", name="Resume after trial 6").wait_for()
        page.wait_for_timeout(1500)
        observe = (
            "() => new Promise((done) => { let seen = 0;"
            " const watcher = new MutationObserver((list) => { seen += list.length; });"
            " watcher.observe(document.querySelector('[data-testid=stMain]'),"
            " {subtree: true, childList: true, characterData: true});"
            " setTimeout(() => { watcher.disconnect(); done(seen); }, 2500); })"
        )
        assert page.evaluate(observe) == 0


def test_all_of_it_fits_a_phone_in_the_dark(serve, visit, store):
    search_id = tune_searches.finished(store)
    with serve() as server:
        page = visit(f"{server.url}/tune?search={search_id}", color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 800})
        page.locator(".js-plotly-plot").first.wait_for()
        for name in ("Curves", "What mattered", "Trials", "Log", "Progress"):
            page.get_by_role("tab", name=name).click()
            page.wait_for_timeout(500)
            assert page.evaluate(OVERHANG) == 0
        page.get_by_role("button", name="Set up a copy").click()
        page.get_by_role("button", name="Launch the search").wait_for()
        assert page.evaluate(OVERHANG) == 0
        page.context.close()  # a page that waits for the network's count would miss the server
        page = visit(f"{server.url}/tune?search={search_id}")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Delete for good").click()
        page.get_by_role("button", name="Launch the search").wait_for()
        assert store.searches().empty
        page.context.close()
