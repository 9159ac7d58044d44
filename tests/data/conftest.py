"""A small CIFAR-10 of each version, written once; tests link to its files instead of copying them."""

import os

import pytest

from cifar_core.data import batches, locate, reader
from tests.data.cifar_files import ROWS, write_archive, write_binary, write_python


@pytest.fixture(scope="module", autouse=True)
def few_rows():
    """The package expects batches of `ROWS` images in these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (batches, reader):
            patch.setattr(module, "ROWS", ROWS)
        yield


@pytest.fixture(autouse=True)
def no_caches_of_the_machine(tmp_path, monkeypatch):
    """Keras's caches of this machine are not searched, nor is what other tests have found damaged."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(locate, "_TEMPORARY", str(tmp_path / "temporary"))
    locate._known_damaged.clear()


@pytest.fixture
def published_rows(monkeypatch):
    """For tests that read the real images."""
    for module in (batches, reader):
        monkeypatch.setattr(module, "ROWS", 10_000)


@pytest.fixture(scope="session")
def python_folder(tmp_path_factory):
    return write_python(tmp_path_factory.mktemp("python") / "cifar-10-batches-py")


@pytest.fixture(scope="session")
def binary_folder(tmp_path_factory):
    return write_binary(tmp_path_factory.mktemp("binary") / "cifar-10-batches-bin")


@pytest.fixture(scope="session")
def python_archive(python_folder):
    return write_archive(python_folder.parent / "cifar-10-python.tar.gz", python_folder)


@pytest.fixture
def linked(tmp_path):
    """A folder of links to another's files, some of them replaced by other bytes or left out (None)."""

    def make(source, target=None, **changed):
        target = target or tmp_path / "linked" / source.name
        target.mkdir(parents=True)
        for file in source.iterdir():
            if file.name not in changed:
                os.link(file, target / file.name)
        for name, content in changed.items():
            if content is not None:
                (target / name).write_bytes(content)
        return target

    return make
