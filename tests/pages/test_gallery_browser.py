"""The gallery in a real browser, on a run that was really trained: from a cell to a tagged image and back."""

import json
import re
import shutil

import numpy as np
import pytest

from cifar_core.analysis.mistakes import counts, mistakes, narrowed, ordered
from cifar_core.data.problem import CLASS_NAMES
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunStore
from cifar_core.training.run import train
from tests.pages.browsing import CUT, OVERHANG

pytestmark = pytest.mark.browser
TILES = ".lab-wall [role=option]"
CELLS_PLOT = ".lab-plot-figure"
DOTS = "[...document.querySelectorAll('.lab-plot-figure')].find((one) => one.data?.[0]?.type === 'scatter')"
WALL_HAS = (
    "(count) => [...document.querySelectorAll('*')].some((one) =>"
    " one.shadowRoot?.querySelectorAll('.lab-wall [role=option]').length === count)"
)
CELLS = "[...document.querySelectorAll('.lab-plot-figure')].find((one) => one.data?.[0]?.type === 'heatmap')"


@pytest.fixture(scope="module")
def trained_home(prepared_home, tiny, tmp_path_factory):
    """A home with the prepared scenes and a base CNN trained on them for two epochs, answers recorded."""
    folder = tmp_path_factory.mktemp("trained") / "home"
    shutil.copytree(prepared_home, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_LAB_HOME", str(folder))
        config = TrainConfig(
            model="base_cnn", dataset="synthetic", epochs=2, batch_size=50, record_answers=True
        )
        with RunStore() as store:
            run_id = train(config, dataset=tiny, store=store).id
            table = mistakes(store.predictions(run_id))
    return folder, run_id, table


@pytest.fixture
def gallery(trained_home, home, serve):
    """(a server on a home of the test's own, the run, its answers)."""
    folder, run_id, table = trained_home
    shutil.copytree(folder, home, dirs_exist_ok=True)
    with serve() as server:
        yield server, run_id, table


def shown(page):
    """Test indices on the wall, in order."""
    return [int(one) for one in page.locator(TILES).evaluate_all("(all) => all.map((one) => one.dataset.id)")]


def wait_for_wall(page, expected):
    page.wait_for_function(
        "(expected) => JSON.stringify([...document.querySelectorAll('*')].flatMap((one) => one.shadowRoot ?"
        " [...one.shadowRoot.querySelectorAll('.lab-wall [role=option]')].map((t) => Number(t.dataset.id))"
        " : [])) === expected",
        arg=json.dumps(expected, separators=(",", ":")),
    )


def place_of(page, true, predicted):
    """Where the middle of a cell of the confusion matrix is in the window."""
    page.wait_for_function(f"() => {CELLS}?._fullLayout?.xaxis?.d2p")
    return page.evaluate(
        "([x, y]) => {"
        f" const plot = {CELLS}; const {{ xaxis, yaxis }} = plot._fullLayout;"
        " const box = plot.getBoundingClientRect();"
        " return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)]; }",
        [CLASS_NAMES[predicted], CLASS_NAMES[true]],
    )


def click_cell(page, true, predicted):
    """A click on a cell of the confusion matrix, once the page around it stands still."""
    place = None
    while (now := place_of(page, true, predicted)) != place:
        place = now
        page.wait_for_timeout(400)
    page.mouse.move(place[0] - 3, place[1] - 3)
    page.mouse.move(*place)
    page.mouse.click(*place)


def test_from_a_cell_of_the_matrix_to_a_tagged_image_and_back(gallery, visit):
    server, run_id, table = gallery
    cells = counts(table)
    np.fill_diagonal(cells, 0)
    true, predicted = (int(one) for one in np.unravel_index(cells.argmax(), cells.shape))
    assert cells[true, predicted] >= 2, "a network of two epochs confuses some pair twice"
    expected = ordered(narrowed(table, true=true, predicted=predicted))["index"].tolist()

    page = visit(f"{server.url}/gallery?run={run_id}")
    page.locator(TILES).first.wait_for()
    assert shown(page) == ordered(narrowed(table))["index"].tolist()[:120]
    click_cell(page, true, predicted)
    wait_for_wall(page, expected)
    page.wait_for_url(re.compile(f"true={CLASS_NAMES[true]}.*said={CLASS_NAMES[predicted]}"))

    page.locator(TILES).first.click()
    page.wait_for_url(re.compile(f"image={expected[0]}(&|$)"))
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"image={expected[1]}(&|$)"))
    page.get_by_text(f"test image {expected[1]}").wait_for()
    page.get_by_role("button", name="ambiguous").click()
    page.locator(f"{TILES}[aria-label*='# ambiguous']").wait_for()

    fresh = visit(f"{server.url}/gallery?run={run_id}&tag=ambiguous")
    wait_for_wall(fresh, [expected[1]])
    address = page.url
    again = visit(address)
    wait_for_wall(again, expected)
    again.get_by_text(f"test image {expected[1]}").wait_for()
    assert again.locator(f"{TILES}[aria-current=true]").get_attribute("data-id") == str(expected[1])


def test_six_rows_of_the_wall_are_seen_without_scrolling(gallery, visit):
    server, run_id, _ = gallery
    page = visit(f"{server.url}/gallery?run={run_id}&show=all")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.locator(TILES).first.wait_for()
    boxes = page.locator(TILES).evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map((box) => [box.top, box.bottom])"
    )
    assert boxes[0][0] < 420
    assert len({top for top, bottom in boxes if bottom <= 800}) >= 6
    assert page.locator(CELLS_PLOT).first.bounding_box()["y"] < 420, "the matrix stands beside the wall"


def test_no_word_of_the_data_a_search_or_the_mistakes_is_cut(gallery, visit):
    server, run_id, _ = gallery
    views = [
        *(f"gallery?run={run_id}&{rest}" for rest in ("", "beside=Image", "view=Summary")),
        *(f"dataset?dataset=synthetic&tab={tab}" for tab in ("Images", "Light+and+colour", "Augmentation")),
        "tune?dataset=synthetic",
    ]
    page = visit(server.url)
    for view in views:
        page.goto(f"{server.url}/{view}")
        page.locator("h1", has_text=re.compile("Mistakes|Dataset|Tune")).wait_for()
        for width, height in ((1280, 800), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(1500)
            assert (page.evaluate(OVERHANG), page.evaluate(CUT)) == (0, []), (view, width)


def test_the_wall_is_one_tab_stop_and_several_images_are_tagged_at_once(gallery, visit):
    server, run_id, _ = gallery
    page = visit(f"{server.url}/gallery?run={run_id}&show=all")
    tiles = page.locator(TILES)
    tiles.first.wait_for()
    assert tiles.evaluate_all("(all) => all.filter((one) => one.tabIndex === 0).length") == 1
    tiles.first.focus()
    page.keyboard.press("Space")
    page.get_by_text("Tag 1 ticked").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"image={shown(page)[2]}(&|$)"))
    page.keyboard.press("Space")
    page.get_by_text("Tag 2 ticked").wait_for()
    assert tiles.evaluate_all("(all) => all.filter((one) => one.tabIndex === 0).length") == 1
    expected = sorted([shown(page)[0], shown(page)[2]])
    page.get_by_text("Tag 2 ticked").click()
    page.get_by_role("button", name="Tag them").click()
    page.get_by_text("Tag all").wait_for()
    with RunStore() as store:
        assert store.image_tags(store.get(run_id).fingerprint, "wrong label")["index"].tolist() == expected


def test_a_selection_on_the_map_gives_the_wall_its_images(gallery, visit):
    server, run_id, table = gallery
    page = visit(f"{server.url}/gallery?run={run_id}&show=all&beside=Map")
    page.wait_for_function(f"() => {DOTS}?._fullLayout?.xaxis?.d2p", timeout=120_000)
    box = page.evaluate(
        f"() => {{ const b = {DOTS}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }}"
    )
    x, y, width, height = box
    page.mouse.move(x + 0.1 * width, y + 0.15 * height)
    page.mouse.down()
    for across, down in ((0.5, 0.15), (0.5, 0.9), (0.1, 0.9), (0.1, 0.16)):
        page.mouse.move(x + across * width, y + down * height, steps=8)
    page.mouse.up()
    page.get_by_text("selected on the map").wait_for()
    chosen = page.evaluate(
        f"() => {DOTS}.data.flatMap((one) => (one.selectedpoints || []).map((at) => one.customdata[at]))"
    )
    assert 0 < len(chosen) < len(table)
    page.wait_for_function(WALL_HAS, arg=len(chosen))
    assert set(shown(page)) == set(chosen)


def test_one_image_to_its_maps_neighbours_and_epochs(gallery, visit):
    server, run_id, table = gallery
    index = int(ordered(narrowed(table))["index"].iloc[0])
    more = "&".join(f"more={part}" for part in ("Where+it+looked", "Nearest+training+images", "By+epoch"))
    page = visit(f"{server.url}/gallery?run={run_id}&image={index}&{more}")
    page.set_default_timeout(60_000)
    page.locator(".lab-maps figure").nth(3).wait_for()
    page.get_by_text("of the 8 nearest have the image's own label").wait_for()
    assert page.locator(".lab-grid figure").count() == 8
    page.locator(".lab-epochs i").nth(1).wait_for()
    assert page.locator(".lab-epochs i").count() == 2
    page.keyboard.press("n")
    page.wait_for_url(re.compile(rf"image=(?!{index}(&|$))[0-9]+"))
    page.locator(".lab-maps figure").nth(3).wait_for()
