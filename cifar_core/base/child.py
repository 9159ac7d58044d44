"""Processes that talk over standard input and output, one JSON text a line: what both ends need."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_ROOT = str(Path(__file__).parents[2])
"""Where this package stands."""


def package_environment() -> dict[str, str]:
    """This process's variables, with which a child finds this very package whatever its folder."""
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def send(stream: IO[str] | None, message: Mapping[str, Any]) -> bool:
    """Write one message. False where its reader is gone: whoever waits for an answer is then told."""
    assert stream is not None
    try:
        stream.write(json.dumps(message) + "\n")
        stream.flush()
    except BrokenPipeError:
        return False
    return True


def close(stream: IO[str] | None) -> None:
    """Close our end, also where the other is gone and what was still to be written has no reader."""
    if stream is not None:
        try:
            stream.close()
        except BrokenPipeError:
            return


def own_output() -> IO[str]:
    """Standard output for messages alone: what else is printed (frameworks do) goes to standard error."""
    sys.stdout.flush()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines
