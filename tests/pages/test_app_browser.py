"""The frame, Home and Dataset in a real browser, against a server of the test's own."""

import re

import psutil
import pytest

from pages.shared.navigation import PAGES
from tests.pages.browsing import OVERHANG

pytestmark = pytest.mark.browser
ZOOM = (
    "() => { const plot = document.querySelector('.js-plotly-plot');"
    " return window.Plotly.relayout(plot, {'xaxis.range': [1, 3]}); }"
)
RANGE = (
    "() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range.map((end) => Math.round(end))"
)
SHOWN = "() => document.querySelectorAll('.js-plotly-plot').length"


def title(page):
    return page.locator("h1").first


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: entry.title)
def test_a_deep_link_is_right_on_the_first_visit_of_a_fresh_server(entry, serve, visit):
    with serve() as server:
        page = visit(f"{server.url}/{entry.path}")
        if entry.in_menu:
            page.get_by_role("link", name=entry.title, exact=True).first.wait_for()
            title(page).wait_for()
            current = page.locator('[data-testid="stSidebarNavLink"][aria-current="page"]')
            assert current.inner_text().splitlines()[-1] == entry.title  # its icon's name comes first
        else:  # the old address of Compare leads to Runs
            heading = {"compare": "Runs", "run": "Which run?"}[entry.path]
            page.get_by_role("heading", name=heading, level=1, exact=True).wait_for()
        assert page.get_by_text("Page not found").count() == 0
        # A page that still loads its parts would miss them when the server goes.
        page.wait_for_load_state("networkidle")
        page.close()


def test_first_launch_with_no_data_leads_to_the_synthetic_scenes(serve, visit):
    with serve() as server:
        page = visit(server.url)
        page.get_by_role("button", name="Get the images").click()
        page.get_by_role("button", name="Use synthetic scenes").click()
        page.get_by_role("heading", name="Sample images").wait_for(timeout=90_000)
        assert "dataset=synthetic" in page.url
        assert page.locator('[data-testid="stSidebar"]').get_by_text("Synthetic scenes").count() == 1


def test_a_copied_link_opens_the_same_view(scenes_server, visit):
    from playwright.sync_api import expect

    page = visit(f"{scenes_server.url}/dataset?dataset=synthetic")
    shown = page.locator(".lab-grid").first
    before = shown.inner_text()
    page.get_by_role("combobox", name=re.compile("Split")).click()
    page.get_by_role("option", name="test").click()
    page.get_by_role("button", name="Show others").click()
    page.wait_for_url(re.compile("draw=1"))
    page.wait_for_url(re.compile("split=test"))
    other = visit(page.url).locator(".lab-grid").first.inner_text()
    assert other != before
    expect(shown).to_have_text(other, use_inner_text=True, timeout=20_000)


def test_pointing_at_a_dot_shows_its_image(scenes_server, visit):
    page = visit(f"{scenes_server.url}/dataset?dataset=synthetic&tab=Map")
    page.locator(".scatterlayer .point").first.wait_for()
    page.locator(".scatterlayer .point").first.hover(force=True)
    tip = page.locator(".lab-plot-tip")
    tip.wait_for()
    assert re.fullmatch(r"\w+ · \d+", tip.inner_text().strip())


def test_no_figure_offers_to_send_itself_anywhere(scenes_server, visit):
    page = visit(f"{scenes_server.url}/dataset?dataset=synthetic&tab=Map")
    page.locator(".scatterlayer .point").first.wait_for()
    titles = page.evaluate(
        "() => [...document.querySelectorAll('.modebar-btn')].map((it) => it.dataset.title)"
    )
    assert "Download plot as a PNG" in titles
    assert not any("hare" in title or "loud" in title or "dit" in title for title in titles)


def test_zoom_survives_new_data_and_a_rerun(scenes_server, visit):
    page = visit(f"{scenes_server.url}/dataset?dataset=synthetic&tab=Light+and+colour")
    page.wait_for_function(f"({SHOWN})() == 2")
    page.evaluate(ZOOM)
    page.get_by_role("radio", name="test").click()
    page.wait_for_url(re.compile("light_split=test"))
    page.wait_for_timeout(700)
    assert page.evaluate(RANGE) == [1, 3]


def test_both_themes_reach_the_figures(scenes_server, visit):
    papers = []
    for scheme in ("light", "dark"):
        page = visit(f"{scenes_server.url}/dataset?dataset=synthetic&tab=Classes", color_scheme=scheme)
        page.locator(".js-plotly-plot .bars").first.wait_for()
        papers.append(
            page.evaluate("() => document.querySelector('.js-plotly-plot')._fullLayout.paper_bgcolor")
        )
    assert papers == ["#ffffff", "#0e1117"]


def test_nothing_is_cut_off_on_a_phone(scenes_server, visit):
    for path in ("", "dataset?dataset=synthetic"):
        page = visit(f"{scenes_server.url}/{path}")
        page.set_viewport_size({"width": 390, "height": 800})
        title(page).wait_for()
        page.wait_for_timeout(1000)
        assert page.evaluate(OVERHANG) <= 1


def test_the_server_stays_small_and_without_a_framework(scenes_server, visit):
    page = visit(scenes_server.url)
    for name in ("Dataset", "Home"):
        page.get_by_role("link", name=name, exact=True).first.click()
        page.wait_for_timeout(800)
    process = psutil.Process(scenes_server.process.pid)
    assert process.memory_info().rss < 400e6
    maps = {entry.path for entry in process.memory_maps()}
    assert not any("tensorflow" in path or "jaxlib" in path for path in maps)
