"""Runs commands in this process, without the framework."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from cifar_core.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def lab(capsys):
    """`lab("train", "--epochs", "3")` as a person would type it."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        status = main(words)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    return run
