"""A process that does one variant's rounds: `python -m cifar_core.bench.worker`, started by `turns`.

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
            _answer(answers, failed=str(error) if plain else f"{type(error).__name__}: {error}")
            return
        _answer(answers, did=done)


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


def _answer(answers: IO[str], **message: Any) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except BrokenPipeError:
        return  # nobody listens any more; the orders end too, and with them this process


if __name__ == "__main__":
    # What frameworks print must not get between the answers.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, lines)
