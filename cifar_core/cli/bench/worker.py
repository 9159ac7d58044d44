"""A process that does one variant's rounds: `python -m cifar_core.cli.bench.worker`, started by `turns`.

    to the worker      {"maker": "module:function", "options": {...}}, then {...} for each round
    from the worker    {"did": {...}} for each of them, or {"failed": "why"}, after which it ends

It ends as soon as its orders do, in the middle of a round too: then nobody waits for the answer.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

from cifar_core.base import child
from cifar_core.errors import CifarLabError


def serve(orders: IO[str], answers: IO[str]) -> None:
    """Prepare and do what is ordered, until something fails or the orders end."""
    action: Callable[..., dict[str, Any]] | None = None
    for order in _listened_to(orders):
        try:
            if action is None:
                action, done = _made(order), {}
            else:
                done = action(**order)
        except Exception as error:
            traceback.print_exc()
            plain = isinstance(error, CifarLabError)
            child.send(answers, {"failed": str(error) if plain else f"{type(error).__name__}: {error}"})
            return
        child.send(answers, {"did": done})


def _made(order: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    module, _, name = order["maker"].partition(":")
    found: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)(**order["options"])
    return found


def _listened_to(orders: IO[str]) -> Iterator[dict[str, Any]]:
    waiting: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in orders:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield json.loads(waiting.get())


if __name__ == "__main__":
    serve(sys.stdin, child.own_output())
