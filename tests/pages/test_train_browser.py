"""From the Train page to a finished run, and its network asked about a picture, in a real browser."""

import re

import pytest

from tests.pages.browsing import fill, limit_images

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MINUTES = 180_000
"""Milliseconds: a busy machine may take long; a quiet one takes some twenty seconds."""


@pytest.mark.usefixtures("prepared")
def test_a_launched_run_finishes_once_and_its_network_answers(serve, visit):
    with serve() as server:
        page = visit(f"{server.url}/train?preset=base_cnn/paper-baseline")
        page.get_by_role("button", name="Use synthetic scenes").click()
        fill(page, "Epochs", "2")
        page.get_by_role("button", name=re.compile("epochs: 50")).wait_for()
        limit_images(page, 300)
        page.get_by_role("button", name="Launch").dblclick()
        page.wait_for_url(re.compile(r"/runs\?.*runs=base_cnn-"))
        page.get_by_text("Finished").first.wait_for(timeout=MINUTES)
        assert _states() == ["finished"]
        page.get_by_role("link", name="Try it", exact=True).first.click()
        page.get_by_text(re.compile(r"probability")).first.wait_for(timeout=MINUTES)
        page.get_by_role("button", name=re.compile("test ")).nth(5).click()
        page.get_by_text(re.compile(r"test image \d+: the 32")).wait_for()


def _states():
    from cifar_core.store import RunStore

    store = RunStore()
    try:
        return store.runs()["state"].tolist()
    finally:
        store.close()
