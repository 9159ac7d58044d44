"""Pictures of every page for docs/images, light and dark, on a laptop and a phone; and moving ones.

    export CIFAR_LAB_HOME=...                            # a store with some finished runs
    streamlit run app.py --server.headless true
    python docs/screenshots.py http://localhost:8501 [NAME ...]

NAME is one of PICTURES or MOVING; none takes all pictures. "live-curves" wants a run that trains meanwhile,
"watch-it-learn" a finished one. It needs the test extra (Playwright, Pillow) and Chromium.
"""

import io
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from cifar_core import RunStore
from cifar_core.store.artifacts import PREDICTIONS

IMAGES = Path(__file__).with_name("images")
PICTURES = {
    "home": "",
    "minutes": "#Accuracy against training time",
    "dataset": "dataset",
    "dataset-map": "dataset?tab=Map",
    "train": "train",
    "tune": "tune",
    "runs": "runs?runs={several}",
    "run": "run?id={run}",
    "learning": "run?id={run}#Watch it learn",
    "leaderboard": "leaderboard",
    "mistakes": "gallery?run={run}",
    "mistakes-map": "gallery?run={run}&show=all&beside=Map",
    "mistakes-image": "gallery?run={run}&beside=Image&more=Where+it+looked",
    "mistakes-two": "gallery?view=Two+runs",
    "try": "try",
}
"""Address of each picture; behind "#" the heading to which the page is scrolled."""
MOVING = {"live-curves": "runs?runs={training}", "watch-it-learn": "run?id={run}#Watch it learn"}
SIZES = {"": (1280, 800), "phone": (390, 844)}
SCHEMES = ("light", "dark")
SETTLE_MS = 2500
"""Thumbnails and fonts come after the rest."""
READY = """() => !document.querySelector("[data-testid=stSkeleton], [data-test-script-state=running]")
  && !/(Asking|Preparing|Placing|Computing|Predicting|Counting|Looking)[^.]*:/.test(document.body.innerText)
  && [...document.querySelectorAll(".lab-plot-figure")].every((one) => one.querySelector(".main-svg"))"""
NEVER_FADED = "[data-stale=true] { opacity: 1 !important; transition: none !important; }"
"""A busy machine would show parts that are being updated in grey."""
FRAME_MS, LONGEST_S, MOVING_WIDTH = 2000, 150, 960
LARGEST = 1_400_000


def main(base: str, names: list[str]) -> None:
    """Write one WebP for each picture and view, and one for each moving picture."""
    IMAGES.mkdir(exist_ok=True)
    runs = _runs()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            for name in names or PICTURES:
                if name in PICTURES:
                    _take(page, base, name, PICTURES[name].format(**runs), size)
                elif not size:
                    _open(page, base, MOVING[name].format(**runs))
                    _record(page, name)


def _runs() -> dict[str, str]:
    """Ids of the newest run in training, the newest that keeps predictions, the best ones of four models."""
    with RunStore() as store:
        training, finished = (store.runs(state=state) for state in ("running", "finished"))
        whole = [one for one in finished["id"] if (store.artifact_dir(one) / PREDICTIONS).is_file()]
    several = finished.sort_values("accuracy", ascending=False).drop_duplicates("model")["id"].head(4)
    return {
        "training": next(iter(training["id"]), ""),
        "run": next(iter(whole), ""),
        "several": ",".join(several),
    }


def _open(page: Page, base: str, address: str) -> None:
    address, _, heading = address.partition("#")
    page.goto(f"{base.rstrip('/')}/{address}")
    page.get_by_role("heading", level=1).first.wait_for(timeout=60_000)
    page.add_style_tag(content=NEVER_FADED)
    for _ in range(2):  # what a page asks for once it is drawn has its own wait
        page.wait_for_timeout(SETTLE_MS)
        page.wait_for_function(READY, timeout=120_000)
    if heading:
        page.get_by_role("heading", name=heading).first.evaluate("(one) => one.scrollIntoView()")
        page.wait_for_timeout(SETTLE_MS)


def _take(page: Page, base: str, name: str, address: str, size: str) -> None:
    """A page in both themes."""
    page.emulate_media(color_scheme=SCHEMES[0])
    _open(page, base, address)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(SETTLE_MS)
        file = IMAGES / f"{name}-{'-'.join(filter(None, (size, scheme)))}.webp"
        _frame(page).save(file, quality=72, method=6)
        print(f"{file.name}  {file.stat().st_size / 1000:.0f} kB", flush=True)


def _frame(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def _record(page: Page, name: str) -> None:
    """The page's main part while it moves, as a WebP of less than 1.5 MB."""
    left = int(page.get_by_test_id("stMain").bounding_box()["x"])
    frames: list[Image.Image] = []
    for _ in _played(page) if name == "watch-it-learn" else _watched(page):
        frame = _frame(page)
        frame = frame.crop((left, 0, *frame.size))
        size = (MOVING_WIDTH, MOVING_WIDTH * frame.height // frame.width)
        frames.append(frame.resize(size, Image.Resampling.LANCZOS))
    durations = [max(100, min(700, 8000 // len(frames)))] * len(frames)
    durations[-1] += 1500
    file = IMAGES / f"{name}.webp"
    for quality in (70, 55, 40, 25):
        frames[0].save(
            file,
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            quality=quality,
            method=4,
        )
        if file.stat().st_size < LARGEST:
            break
    print(f"{file.name}  {len(frames)} frames  {file.stat().st_size / 1000:.0f} kB", flush=True)


def _watched(page: Page) -> Iterator[None]:
    """Moments of a page that changes by itself."""
    end = time.monotonic() + LONGEST_S
    while (begun := time.monotonic()) < end:
        yield
        page.wait_for_timeout(max(0, FRAME_MS - 1000 * (time.monotonic() - begun)))


def _played(page: Page) -> Iterator[None]:
    """Each epoch of "Watch it learn", however slow this machine is."""
    slider = page.locator("input[type=range][aria-label=Epoch]")
    for epoch in range(int(slider.get_attribute("max") or 0) + 1):
        slider.evaluate(
            "(one, value) => { one.value = value; one.dispatchEvent(new Event('input')); }",
            epoch,
        )
        yield


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
