"""A newcomer's way on real images, and what may happen on it: closed tabs, two people, a killed worker, a
restarted app. Workers train for real; the store says what is true, the page must say the same."""

import os
import re
import signal
import time

import psutil
import pytest

from tests.pages.browsing import fill, limit_images

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000
"""Milliseconds: a worker's start on a busy machine."""
IMAGES = 600
POINTS = (
    "() => { const plot = document.querySelectorAll('.js-plotly-plot')[0];"
    " const lines = plot?._fullData?.filter("
    "(t) => t.name.endsWith(', training') && !t.name.startsWith('study'));"
    " return lines?.length && lines[0].x ? lines[0].x.length : 0; }"
)


@pytest.fixture
def store(home_store):
    yield home_store
    for run_id in home_store.runs(state=("queued", "running", "stopping"))["id"]:
        _end(home_store, run_id)


def _end(store, run_id):
    pid = store.get(run_id).pid
    store.request_stop(run_id)
    if pid and psutil.pid_exists(pid):
        psutil.Process(pid).kill()


def wait(condition, seconds=120):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def choose_settings(page, epochs):
    fill(page, "Epochs", epochs)
    page.get_by_role("button", name=re.compile("epochs: 50")).wait_for()
    limit_images(page, IMAGES)


def launch(page):
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(r"/runs\?.*runs=base_cnn-"))
    return re.search(r"runs=(base_cnn-\w+)", page.url)[1]


def close(*pages):
    """Before their server ends: a page that polls would complain that it is gone."""
    for page in pages:
        page.close()


@pytest.mark.real_data
def test_from_no_data_to_a_run_watched_stopped_resumed_and_reopened(serve, visit, store, real_cifar):
    with serve(CIFAR_LAB_SUPERVISE="1", CIFAR_LAB_DATA="", KERAS_HOME=str(store.artifacts_root)) as server:
        page = visit(server.url)
        page.get_by_role("link", name="Dataset", exact=True).first.click()
        field = page.get_by_role("textbox", name="Folder or archive on this machine")
        field.fill(str(real_cifar))
        field.press("Enter")
        page.get_by_role("button", name="Copy it").click()
        page.get_by_text(re.compile("50,000 training and 10,000 test images")).wait_for(timeout=LONG)
        page.goto(f"{server.url}/train?preset=base_cnn/paper-baseline")
        choose_settings(page, 400)
        run_id = launch(page)
        page.wait_for_function(f"() => ({POINTS})() > 1", timeout=LONG)
        before = page.evaluate(POINTS)
        page.wait_for_function(f"() => ({POINTS})() > {before}", timeout=LONG)
        page.get_by_role("button", name="Stop", exact=True).first.click()
        page.get_by_text("stopped on request").first.wait_for(timeout=LONG)
        stopped = store.get(run_id)
        assert stopped.state == "stopped"
        page.get_by_role("button", name=re.compile("Resume after epoch|Start again")).click()
        wait(lambda: store.get(run_id).epochs_done > stopped.epochs_done)
        other = visit(page.url)
        other.get_by_text(re.compile(r"Running, epoch \d+ of 400")).first.wait_for(timeout=LONG)
        assert len(store.runs()) == 1
        assert store.history(run_id)["epoch"].is_unique
        close(page, other)


@pytest.mark.usefixtures("prepared")
def test_nothing_that_people_do_loses_or_doubles_a_run(serve, visit, store):
    with serve(CIFAR_LAB_SUPERVISE="1") as server:
        pages = [visit(f"{server.url}/train?preset=base_cnn/paper-baseline") for _ in range(2)]
        for page in pages:
            page.get_by_role("button", name="Use synthetic scenes").click()
            choose_settings(page, 400)
        ids = [launch(page) for page in pages]
        assert len(set(ids)) == 2
        first, second = ids
        wait(lambda: store.get(first).epochs_done >= 1)
        assert store.get(second).state == "queued", "one device, one run at a time"
        pages[0].close()
        seen = store.get(first).epochs_done
        wait(lambda: store.get(first).epochs_done > seen)
        os.kill(store.get(first).pid, signal.SIGKILL)
        wait(lambda: store.get(first).state == "crashed", seconds=15)
        page = visit(f"{server.url}/runs?runs={first}")
        page.get_by_text(re.compile("Crashed")).first.wait_for()
        page.get_by_role("button", name=re.compile("Resume after epoch")).wait_for()
        wait(lambda: store.get(second).state == "running")
        close(page, pages[1])


@pytest.mark.usefixtures("prepared")
def test_an_app_killed_in_mid_training_comes_back_to_a_run_that_went_on(serve, visit, store):
    with serve(CIFAR_LAB_SUPERVISE="1") as server:
        page = visit(f"{server.url}/train?preset=base_cnn/paper-baseline")
        page.get_by_role("button", name="Use synthetic scenes").click()
        choose_settings(page, 400)
        run_id = launch(page)
        wait(lambda: store.get(run_id).epochs_done >= 1)
        page.close()
        server.process.kill()
        server.process.wait()
    seen = store.get(run_id).epochs_done
    with serve(CIFAR_LAB_SUPERVISE="1") as server:
        page = visit(f"{server.url}/runs?runs={run_id}")
        page.get_by_text(re.compile(r"Running, epoch \d+ of 400")).first.wait_for(timeout=LONG)
        wait(lambda: store.get(run_id).epochs_done > seen)
        page.get_by_role("button", name="Stop", exact=True).first.click()
        page.get_by_text("stopped on request").first.wait_for(timeout=LONG)
        assert store.history(run_id)["epoch"].tolist() == list(range(1, store.get(run_id).epochs_done + 1))
        close(page)


def test_from_first_launch_to_a_comparison_by_buttons_alone(serve, visit, store):
    """First launch, scenes, launch, live curve, finished, its mistakes, one image, changed and trained again,
    compared: in at most twelve clicks."""
    clicks = []

    def click(target, **options):
        target.click(**options)
        clicks.append(str(target))

    def button(page, name):
        return page.get_by_test_id("stMain").get_by_role("button", name=name)

    with serve(CIFAR_LAB_SUPERVISE="1") as server:
        page = visit(server.url)
        page.set_default_timeout(4 * LONG)
        click(button(page, "Train the base CNN"))
        click(button(page, "Use synthetic scenes"))
        page.get_by_role("button", name=re.compile("Use CIFAR-10 instead")).wait_for()
        limit_images(page, IMAGES)  # typed, to spare time
        click(button(page, "Launch"))
        page.wait_for_url(re.compile(r"/runs\?.*runs=base_cnn-"))
        page.wait_for_function(f"() => ({POINTS})() > 1")
        click(page.get_by_role("link", name="Study its mistakes"))
        click(page.locator(".lab-wall [role=option]").first)
        page.wait_for_url(re.compile(r"image=\d+"))
        click(page.get_by_role("link", name="The run, to change and train again"))
        click(button(page, "Change and train again"))
        click(page.get_by_test_id("stMain").get_by_role("radio", name="The study's baseline"))
        page.wait_for_url(re.compile("paper-baseline"))
        fill(page, "Epochs", 2)
        click(button(page, "Launch"))
        page.get_by_role("link", name="Study its mistakes").wait_for()
        click(button(page, "Compare with …"))
        click(page.get_by_role("button", name=re.compile("base_cnn-.*custom")).first)
        page.wait_for_url(re.compile(r"/runs\?.*runs=base_cnn-\w+(,|%2C)base_cnn-"))
        page.get_by_role("tab", name="Settings that differ").wait_for()
        page.get_by_text("Batch norm").first.wait_for()
        assert store.runs()["state"].tolist() == ["finished"] * 2
        assert len(clicks) <= 12, clicks
        close(page)
