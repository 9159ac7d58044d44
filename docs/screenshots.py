"""Pictures of every page for docs/images: light, dark and as a phone shows it.

    streamlit run app.py --server.headless true          # with some runs in the store
    python docs/screenshots.py http://localhost:8501 [PAGE ...]

PAGE is a page's address, such as "leaderboard" ("" for the Overview), with parameters if wanted
("runs?runs=base_cnn-8f3a1c"); none takes them all. It needs the test extra (Playwright, Pillow) and Chromium.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages.shared.navigation import PAGES

IMAGES = Path(__file__).with_name("images")
VIEWS = {"light": ("light", 1280, 900), "dark": ("dark", 1280, 900), "phone": ("light", 390, 844)}
TALL = {"runs": 1230}
"""Height of wide windows for a page whose curves begin below the fold of a usual one."""
SETTLE_MS = 6000
"""Figures and thumbnails come after the text."""


def main(base: str, addresses: list[str]) -> None:
    """Write one WebP for each page and view."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for address in addresses or [entry.path for entry in PAGES]:
            for view in VIEWS:
                _take(browser, base, address, view)


def _take(browser: Browser, base: str, address: str, view: str) -> None:
    name = address.split("?")[0] or "overview"
    scheme, width, height = VIEWS[view]
    if view != "phone":
        height = TALL.get(name, height)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    page = context.new_page()
    page.goto(f"{base.rstrip('/')}/{address}")
    page.get_by_role("heading", level=1).first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    page.wait_for_function("() => !/(Asking|Preparing)/.test(document.body.innerText)", timeout=120_000)
    file = IMAGES / f"{name}-{view}.webp"
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(file, quality=72, method=6)
    print(f"{file.name}  {file.stat().st_size / 1000:.0f} kB")
    context.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
