"""Where CIFAR-10 is looked for, in which order, and what is said where it is not."""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cifar_core.data import dataset_status, load_dataset
from cifar_core.data import reader as reader_module
from cifar_core.data.batches import PYTHON
from cifar_core.data.locate import Location, find, inspect, locate
from cifar_core.errors import DataError, DataNotFoundError
from tests.data.cifar_files import BATCHES


@pytest.fixture
def stub():
    """A folder that is a CIFAR-10 by its names."""

    def make(folder, names=tuple(BATCHES)):
        folder.mkdir(parents=True)
        for name in names:
            with (folder / name).open("wb") as file:
                file.truncate(PYTHON.least_bytes)
        return folder

    return make


@pytest.fixture
def keras(tmp_path):
    return tmp_path / "keras-home" / "datasets"


def test_order_explicit_variable_home_keras(stub, tmp_path, home, keras, monkeypatch):
    explicit = stub(tmp_path / "explicit" / "cifar-10-batches-py")
    named = stub(tmp_path / "named" / "cifar-10-batches-py")
    at_home = stub(home / "data" / "cifar-10-batches-py")
    cached = stub(keras / "cifar-10-batches-py-target" / "cifar-10-batches-py")
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "named"))
    assert find(explicit.parent).path == explicit
    assert locate().path == named
    monkeypatch.delenv("CIFAR_LAB_DATA")
    assert locate() == Location(at_home, find(at_home).layout, "local folder")
    for file in at_home.iterdir():
        file.unlink()
    assert (locate().path, locate().source) == (cached, "Keras cache")


@pytest.mark.parametrize(
    ("entry", "inside"),
    [
        ("cifar-10-batches-py-target", "cifar-10-batches-py"),  # keras 3.15
        ("cifar-10-batches-py", "."),  # keras 2, tf.keras
        ("cifar-10-batches-py", "cifar-10-batches-py"),  # keras 3 before 3.6
    ],
)
def test_folders_of_all_keras_releases(stub, keras, entry, inside):
    folder = stub(keras / entry / inside)
    assert locate().path == folder.resolve()
    assert dataset_status().source == "Keras cache"


@pytest.mark.parametrize(
    "name",
    ["cifar-10-batches-py-target_archive", "cifar-10-batches-py_archive", "cifar-10-batches-py.tar.gz"],
)
def test_archives_of_all_keras_releases(keras, name):
    keras.mkdir(parents=True)
    (keras / name).write_bytes(b"\x1f\x8b")
    assert locate() == Location(keras / name, None, "Keras cache")


def test_names_are_those_of_the_keras_that_is_installed():
    import importlib.util
    from pathlib import Path

    from cifar_core.data.locate import _KERAS_NAMES

    package = Path(importlib.util.find_spec("keras").origin).parent
    source = (package / "src" / "datasets" / "cifar10.py").read_text(encoding="utf-8")
    named = source.split('dirname = "')[1].split('"')[0]
    assert named in _KERAS_NAMES


def test_a_home_for_keras_without_variable(stub, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = stub(tmp_path / ".keras" / "datasets" / "cifar-10-batches-py")
    assert locate().path == folder


def test_a_wrong_explicit_path_never_falls_through(stub, home, tmp_path):
    stub(home / "data" / "cifar-10-batches-py")
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataNotFoundError) as caught:
            load_dataset(path=path)
        for part in (str(path), "cifar-10-batches-bin", "cifar-lab data download", "dataset 'synthetic'"):
            assert part in str(caught.value)


def test_a_wrong_variable_never_falls_through(stub, home, tmp_path, monkeypatch):
    stub(home / "data" / "cifar-10-batches-py")
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataNotFoundError, match=r"^CIFAR_LAB_DATA is set, but: No CIFAR-10 at .*nowhere"):
        load_dataset()
    status = dataset_status()
    assert not status.found
    assert status.searched == ((f"CIFAR_LAB_DATA: {tmp_path / 'nowhere'}", "nothing there"),)
    part = stub(tmp_path / "part", BATCHES[:4])
    monkeypatch.setenv("CIFAR_LAB_DATA", str(part))
    with pytest.raises(DataError, match=r"CIFAR_LAB_DATA is set, but: .*data_batch_5, test_batch missing"):
        load_dataset()


def test_an_empty_variable_is_no_variable(monkeypatch):
    monkeypatch.setenv("CIFAR_LAB_DATA", "")
    with pytest.raises(DataNotFoundError, match="Looked in"):
        load_dataset()


def test_nothing_anywhere_says_where_it_looked_and_what_to_do(home, keras):
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset()
    for part in (
        str(home / "data"),
        str(keras),
        "cifar-lab data download",
        "cifar-lab data import",
        "CIFAR_LAB_DATA",
        "dataset 'synthetic'",
    ):
        assert part in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_an_incomplete_copy_is_passed_over_and_mentioned(stub, home, keras):
    stub(home / "data" / "cifar-10-batches-py", BATCHES[:3])
    with pytest.raises(DataNotFoundError, match=r"data_batch_4, data_batch_5, test_batch missing"):
        load_dataset()
    cached = stub(keras / "cifar-10-batches-py")
    status = dataset_status()
    assert status.origin == str(cached)
    assert status.searched[0] == (
        f"home data folder: {home / 'data'}",
        "is incomplete: data_batch_4, data_batch_5, test_batch missing; download or copy it again",
    )


def test_an_archive_in_the_home_folder_is_found(home):
    (home / "data").mkdir(parents=True)
    (home / "data" / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b")
    assert locate().path == home / "data" / "cifar-10-python.tar.gz"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "nothing there"),
        (lambda path: path.mkdir(), "an empty folder"),
        (lambda path: path.write_bytes(b"hello"), "a file that is not an archive (.tar.gz, .tar or .zip)"),
        (lambda path: path.write_bytes(b""), "an empty file: its download or copy broke off"),
        (os.mkfifo, "neither a file nor a folder"),
    ],
)
def test_what_is_there_instead(tmp_path, make, reason):
    make(tmp_path / "x")
    assert inspect(tmp_path / "x").describe() == reason
    assert inspect(tmp_path / "x" / "y").describe() == "nothing there"


def test_status_is_cheap_and_reads_no_images(python_folder, linked, home, monkeypatch):
    linked(python_folder, home / "data" / python_folder.name)

    def refuse(*_):
        raise AssertionError("status read an image file")

    monkeypatch.setattr(reader_module, "_read_file", refuse)
    start = time.process_time()
    status = dataset_status()
    assert time.process_time() - start < 0.1
    assert status.found
    assert status.source == "local folder"
    assert status.origin == str(home / "data" / python_folder.name)
    assert status.home == home
    assert status.searched == (
        (f"home data folder: {home / 'data'}", f"python version in {home / 'data' / python_folder.name}"),
    )


def test_status_of_nothing():
    status = dataset_status()
    assert not status.found
    assert status.source == status.origin == ""
    assert [place.split(":")[0] for place, _ in status.searched] == ["home data folder", *["Keras cache"] * 3]
    assert {what for _, what in status.searched} == {"nothing there"}


def test_importing_is_light():
    """Pages import this package on every start: no keras, no HTTP client, no imaging library with it."""
    heavy = ("keras", "tensorflow", "requests", "PIL", "pandas", "streamlit")
    code = f"import sys, cifar_core.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_messages_that_pages_show_quote_no_command_line_flags():
    core = Path(reader_module.__file__).parents[1]
    quoted = []
    for file in core.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        if file.relative_to(core).parts[0] != "cli":
            quoted += [
                (file.name, node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
                if id(node) not in docstrings and re.search(r"`([^`]* )?--\w", node.value)
            ]
    assert not quoted
