"""Pages of a store in which one run's folder is damaged: the other runs are shown as ever."""

import os
import shutil

import pytest

from pages.shared import resources
from tests.pages import live_runs


def file_instead(folder):
    shutil.rmtree(folder)
    folder.write_text("?")


def link_to_itself(folder):
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)


def pipes(folder):
    for path in list(folder.iterdir()):
        path.unlink()
        os.mkfifo(path)


@pytest.mark.parametrize("damage", [file_instead, link_to_itself, pipes, shutil.rmtree])
@pytest.mark.parametrize(
    "page",
    [
        pytest.param("pages/mistakes/mistakes.py"),
        pytest.param("pages/try_it/try_it.py", marks=pytest.mark.slow),
        pytest.param("pages/runs/run.py", marks=pytest.mark.slow),
    ],
)
def test_one_damaged_folder_hides_no_other_run(open_page, page, damage):
    store = resources.store()
    sound, damaged = live_runs.finished(store), live_runs.finished(store, learning_rate=0.02)
    damage(store.artifact_dir(damaged))
    assert store.has_artifact(sound, "model.keras")
    assert not store.has_artifact(damaged, "model.keras")
    test = open_page(page, **({"id": damaged} if "run.py" in page else {}))
    assert not test.exception
    names = [*(options for box in test.selectbox for options in box.options), *(m.value for m in test.title)]
    assert not [error.value for error in test.error if "Traceback" in error.value]
    if "mistakes" in page:
        assert any(sound in name for name in names), names
