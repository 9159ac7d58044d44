"""Somebody's own pictures, from the path of their folder to a run, its mistakes and a prediction."""

import json
import re

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from cifar_core.serving.run_export import download_path
from tests.pages.browsing import fill
from tests.pages.test_journey_browser import LONG, POINTS, store, wait  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ONE = "(ant|bee|cat|dove|eel|fox|gnu|hen|ibis|jay|koala|lion)"
CLASSES = ("ant", "bee", "cat", "dove", "eel", "fox", "gnu", "hen", "ibis", "jay", "koala", "lion")


@pytest.fixture
def folder(tmp_path):
    """2,000 JPEGs of twelve classes, in many sizes."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(167 if label < 8 else 166):
            rough = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            rough[:3, :, label % 3] = 20 * label
            size = (int(rng.integers(120, 420)), int(rng.integers(100, 360)))
            picture = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
            picture.save(tmp_path / "pets" / name / f"{number}.jpg")
    return tmp_path / "pets"


def test_from_a_folder_to_mistakes_and_predictions_that_name_its_classes(serve, visit, store, folder):  # noqa: F811
    with serve(CIFAR_LAB_SUPERVISE="1") as server:
        page = visit(f"{server.url}/dataset?dataset=synthetic")
        page.get_by_role("button", name="Add a dataset").click()
        field = page.get_by_role("textbox", name="Folder or file on this machine")
        field.fill(str(folder))
        field.press("Enter")
        page.get_by_role("button", name="Import", exact=True).click()
        page.get_by_text("1,600 training and 400 test images of 32 × 32 pixels").first.wait_for(timeout=LONG)
        field.wait_for(state="hidden")
        page.get_by_role("link", name="Train", exact=True).first.click()
        page.get_by_text("On pets").wait_for()
        fill(page, "Epochs", 3)
        page.get_by_role("button", name=re.compile("^Launch")).click()
        page.wait_for_url(re.compile(r"/runs\?.*runs=base_cnn-"))
        run_id = re.search(r"runs=(base_cnn-\w+)", page.url)[1]
        page.wait_for_function(f"() => ({POINTS})() > 0", timeout=LONG)
        wait(lambda: store.get(run_id).state == "finished")
        assert store.get(run_id).problem.classes == CLASSES
        page.goto(f"{server.url}/gallery?run={run_id}&show=all&beside=Image&more=Where+it+looked")
        page.get_by_text(re.compile("of 400 are wrong")).wait_for(timeout=LONG)
        page.get_by_text("koala").first.wait_for()
        page.get_by_text(re.compile(f"Grad-CAM: evidence for {ONE}")).first.wait_for(timeout=LONG)
        assert page.get_by_role("button", name="People", exact=True).count() == 0
        page.goto(f"{server.url}/run?id={run_id}")
        page.get_by_role("tab", name="Files").click()
        page.get_by_role("button", name="Make the file").click()
        page.get_by_role("button", name=re.compile("^ONNX")).wait_for(timeout=LONG)
        about = onnxruntime.InferenceSession(download_path(run_id, "onnx", None)).get_modelmeta()
        assert tuple(json.loads(about.custom_metadata_map["classes"])) == CLASSES
        page.goto(f"{server.url}/try?runs={run_id}&source=Your+own")
        page.locator("input[type=file]").set_input_files(folder / "koala" / "0.jpg")
        page.get_by_text("the 32 × 32 pixels that the models see").wait_for(timeout=LONG)
        page.get_by_text(re.compile(f"^{ONE}, probability")).first.wait_for(timeout=LONG)
        page.close()
