"""Watch it learn, look inside, the live camera and the drawing pad in a real browser."""

import os

import numpy as np
import pytest
from PIL import Image

from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from tests.conftest import CHROMIUM
from tests.pages import live_runs
from tests.pages.browsing import CUT, OVERHANG

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium(chromium):
    """One with a camera that shows a test picture, and is allowed without a question."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=[*arguments, *camera])
    yield browser
    browser.close()


# -- Watch it learn --------------------------------------------------------------------------------------


def strip(page):
    """(title, "n of 24 right", signs of right and wrong images)."""
    bar = page.locator(".lab-learn .bar")
    kinds = page.locator(".lab-learn figure").evaluate_all("(all) => all.map((one) => one.className)")
    return bar.locator("b").inner_text(), bar.locator("output").inner_text(), kinds


def test_it_grows_while_the_run_trains_without_being_built_anew(home_store, serve, visit):
    run_id = live_runs.running(home_store, 2)
    live_runs.with_snapshots(home_store, run_id, 2)
    with serve() as server:
        page = visit(f"{server.url}/run?id={run_id}")
        page.locator(".lab-learn figure").nth(23).wait_for()
        title, score, kinds = strip(page)
        assert title == "After epoch 2"
        assert score == "4 of 24 right · validation accuracy 40.0 %"  # 12 of 30 in each row
        assert kinds == ["right"] * 4 + ["wrong"] * 20
        marks = "(one) => getComputedStyle(one.querySelector('i'), '::after').content"
        figures = page.locator(".lab-learn figure")
        assert [figures.nth(place).evaluate(marks) for place in (0, 23)] == ['"✓"', '"✗"']
        figures.first.evaluate("(one) => { one.mine = 'kept'; }")

        live_runs.with_snapshots(home_store, run_id, 3)
        home_store.record_epoch(run_id, 3, live_runs.epoch_metrics(3))
        page.locator(".lab-learn b", has_text="After epoch 3").wait_for()
        assert strip(page)[2] == ["right"] * 6 + ["wrong"] * 18
        assert figures.first.evaluate("(one) => one.mine") == "kept"

        slider = page.locator(".lab-learn input")
        slider.focus()
        page.keyboard.press("Home")
        assert strip(page)[:2] == ("Before training", "0 of 24 right")
        live_runs.with_snapshots(home_store, run_id, 4)
        home_store.record_epoch(run_id, 4, live_runs.epoch_metrics(4))
        page.wait_for_function(
            "() => [...document.querySelectorAll('*')].some((one) => "
            "one.shadowRoot?.querySelector('.lab-learn input')?.max === '4')"
        )
        assert strip(page)[0] == "Before training", "who looks at an earlier epoch stays there"


REMEMBER = """() => {
    const find = (one) => one.shadowRoot?.querySelector(".lab-learn b");
    const title = () => [...document.querySelectorAll("*")].map(find).find((one) => one)?.textContent;
    window.titles = [title()];
    setInterval(() => { if (title() && title() !== window.titles.at(-1)) window.titles.push(title()); }, 20);
}"""


def test_play_goes_to_the_end_and_a_phone_shows_all(home_store, serve, visit):
    run_id = live_runs.finished(home_store)
    live_runs.with_snapshots(home_store, run_id, 5)
    with serve() as server:
        page = visit(f"{server.url}/run?id={run_id}")
        page.locator(".lab-learn figure").nth(23).wait_for()
        page.locator(".lab-learn").evaluate(REMEMBER)
        page.get_by_role("button", name="▶ Play").click()
        page.wait_for_function("() => window.titles.length > 6", timeout=60_000)
        page.get_by_role("button", name="▶ Play").wait_for()
        assert page.evaluate("() => window.titles") == [
            "After epoch 5", "Before training", *(f"After epoch {epoch}" for epoch in range(1, 6))
        ]  # fmt: skip
        page.set_viewport_size({"width": 1280, "height": 800})
        page.wait_for_timeout(500)
        assert page.evaluate(CUT) == []
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate(OVERHANG) <= 0
        assert page.locator(".lab-learn .live").is_hidden()


# -- Try it ----------------------------------------------------------------------------------------------


@pytest.fixture
def network(prepared, home):  # noqa: ARG001 - the scenes are there
    """A finished run with a small untrained network."""
    from cifar_core.models import create_model

    with RunStore() as store:
        run_id = store.create_run(TrainConfig(dataset="synthetic"))
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment={}, dataset={"name": "synthetic"}, parameters=1)
        model = create_model("resnet9", width=4)
        store.write_artifact(run_id, "model.keras", lambda file: model.save(file.name))
        store.finish(run_id, metrics={"accuracy": 0.1})
    return run_id


def test_a_covered_part_a_drawing_and_the_camera(network, serve, visit, tmp_path):  # noqa: ARG001
    with serve() as server:
        page = visit(f"{server.url}/try")
        page.get_by_role("button", name="Use synthetic scenes").click()
        page.locator(".lab-stages section").first.wait_for(timeout=90_000)
        assert 3 <= page.locator(".lab-stages section").count() <= 6
        page.locator(".lab-cover .picture").focus()
        for _ in range(6):
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        style = page.locator(".lab-cover .square").get_attribute("style")
        assert "top: 0%; left: 12.5%" in style
        assert "Without this part" in page.locator(".lab-cover .said p").inner_text()
        _draws(page, server)
        _films(page, server)
        _crops(page, server, tmp_path)


def _draws(page, server):
    page.goto(f"{server.url}/try?dataset=synthetic&source=Draw")
    pad = page.locator(".lab-source .pad")
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 180, steps=4)
    page.mouse.up()
    page.get_by_text("Your drawing: the 32 × 32 pixels").wait_for()
    page.locator(".lab-stages section").first.wait_for()


def _films(page, server):
    """Each answer makes the list of models anew."""
    page.goto(f"{server.url}/try?dataset=synthetic&source=Camera")
    page.get_by_role("button", name="Start camera").click()
    page.locator(".lab-source .model").wait_for(timeout=60_000)
    for _ in range(3):
        page.wait_for_function(
            "() => [...document.querySelectorAll('*')].some((one) => "
            "one.shadowRoot?.querySelector('.lab-source .model:not([data-seen])'))"
        )
        page.locator(".lab-source .model").evaluate("(one) => { one.dataset.seen = 1; }")
    page.get_by_role("button", name="Keep this picture").click()
    page.get_by_text("Your photograph: the 32 × 32 pixels").wait_for()
    page.get_by_role("button", name="Stop camera").click()


def _crops(page, server, folder):
    wide = np.zeros((100, 200, 3), np.uint8)
    wide[:, 150:] = 255
    Image.fromarray(wide).save(folder / "wide.png")
    page.goto(f"{server.url}/try?dataset=synthetic&source=Your own")
    page.locator("input[type=file]").set_input_files(folder / "wide.png")
    page.get_by_text("Drag a square", exact=True).click()
    page.locator(".lab-source .frame").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    mean = (
        "(one) => { const pen = new OffscreenCanvas(32, 32).getContext('2d'); pen.drawImage(one, 0, 0);"
        " const all = pen.getImageData(0, 0, 32, 32).data; let sum = 0;"
        " for (let at = 0; at < all.length; at += 4) sum += all[at]; return sum / 1024; }"
    )
    page.wait_for_timeout(1500)
    assert 110 < page.locator(".lab-pixels").evaluate(mean) < 145, "its right half is white now"
