"""The end of a run or search: recorded where it did not finish, and told to the webhook if one is set."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cifar_core.errors import (
    CifarLabError,
    RunNotFoundError,
    RunStateError,
    StoreDamagedError,
    StoreError,
    TrainingError,
)
from cifar_core.store import RunStore
from cifar_core.training.alerts import announce

log = logging.getLogger(__name__)

RECORD_TIMEOUT_S = 30.0
"""Seconds to keep retrying to record a run's final state while the store is unavailable."""
RETRY_INTERVAL_S = 0.5
_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "out of memory", "OOM when")


@contextmanager
def recorded_end(store: RunStore, run_id: str) -> Iterator[None]:
    """Record the reason in the store when the block ends with an exception, and raise it again; however it
    ended, tell the webhook.

    Raises:
        CifarLabError: any failure; other exceptions become one with `explained`.
    """
    try:
        yield
    except KeyboardInterrupt:
        _record(lambda: store.stopped(run_id, "interrupted from the keyboard"))
        raise
    except RunStateError:
        raise  # another process has the run now; its record is not ours to write
    except CifarLabError as error:
        message = str(error)
        _record(lambda: store.fail(run_id, message))
        announce(store, run_id)
        raise
    except Exception as error:
        trace, plain = traceback.format_exc(), explained(error)
        _record(lambda: store.fail(run_id, str(plain)))
        _record(lambda: store.event(run_id, "traceback", trace))
        announce(store, run_id)
        raise plain from error
    else:
        announce(store, run_id)


def _record(write: Callable[[], None]) -> None:
    """Call `write`, retrying while the store's disk is full or locked: otherwise the run would stay
    "running" under a process that no longer runs it."""
    deadline = time.monotonic() + RECORD_TIMEOUT_S
    while True:
        try:
            return write()
        except (RunStateError, RunNotFoundError) as error:
            return log.info("%s", error)  # somebody else ended or deleted it first
        except StoreError as error:
            if time.monotonic() >= deadline or isinstance(error, StoreDamagedError):
                return log.error("how the run ended could not be recorded: %s", error)
        time.sleep(RETRY_INTERVAL_S)


def explained(error: Exception) -> CifarLabError:
    """An exception of the framework as one of ours, with advice if the cause is known."""
    text = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY):
        return TrainingError(f"Out of memory. Use a smaller batch_size or a smaller model. ({text[:300]})")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" with {error.filename}" if error.filename else ""
        return TrainingError(f"The disk{where} is full. Free some space, then resume the run. ({text[:300]})")
    return TrainingError(f"Training failed with {text[:500]}")
