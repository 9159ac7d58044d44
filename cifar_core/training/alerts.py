"""A webhook that is called when a run or search has finished, failed or crashed; off unless one is set.

`CIFAR_LAB_WEBHOOK` is the address. The body is JSON, `{"title", "text", "id", "state"}`: Slack and whatever
takes Slack's messages shows `text`; the headers tell ntfy to take title and message from it. An alert never
harms a run: it is sent after the end was recorded, for at most `TIMEOUT_S` seconds, and a failure is only
logged, without the address, which is itself a secret.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from http.client import HTTPException

from cifar_core.errors import CifarLabError
from cifar_core.store import RunRecord, RunState, RunStore

log = logging.getLogger(__name__)

WEBHOOK_VARIABLE = "CIFAR_LAB_WEBHOOK"
TIMEOUT_S = 5.0
ANNOUNCED = (RunState.FINISHED, RunState.FAILED, RunState.CRASHED)
"""States of which people are told; who stops a run knows that it stopped."""
HEADERS = {
    "Content-Type": "application/json",
    "X-Template": "yes",  # ntfy: title and message are made from the JSON body
    "X-Title": "{{.title}}",
    "X-Message": "{{.text}}",
}


def announce(store: RunStore, job_id: str, *, wait: bool = True) -> None:
    """Call the webhook about a run or search that has ended; does nothing where none is set.

    Args:
        store: where its end is recorded.
        job_id: of the run or search.
        wait: return when it was sent or the time is over, as a process must that exits next.
    """
    address = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    if not address:
        return
    try:
        news = message(store, job_id)
    except CifarLabError as error:
        log.warning("no alert about %s: %s", job_id, error)
        return
    if news is not None:
        sender = threading.Thread(target=_post, args=(address, job_id, news), name="alert", daemon=True)
        sender.start()
        if wait:
            sender.join(TIMEOUT_S)


def message(store: RunStore, job_id: str) -> dict[str, str] | None:
    """The end of a run or search in words: {"title", "text", "id", "state"}; None for other states than
    `ANNOUNCED`."""
    record = store.job(job_id)
    if record.state not in ANNOUNCED:
        return None
    title = f"{job_id} {record.state}"
    detail = record.reason or ""
    if record.state is RunState.FINISHED:
        detail = _result(record) if isinstance(record, RunRecord) else f"{record.trials_done} trials"
    return {
        "title": title,
        "text": f"{title}: {detail}" if detail else title,
        "id": job_id,
        "state": str(record.state),
    }


def _result(record: RunRecord) -> str:
    accuracy = (record.metrics or {}).get("accuracy")
    minutes = f" in {record.duration_s / 60:.1f} min" if record.duration_s else ""
    tested = "" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %, "
    return f"{tested}{record.epochs_done} epochs{minutes}"


def _post(address: str, job_id: str, news: dict[str, str]) -> None:
    try:
        if not address.lower().startswith(("http://", "https://")):
            raise ValueError("the address does not begin with http:// or https://")
        request = urllib.request.Request(address, json.dumps(news).encode(), HEADERS)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
    except (OSError, ValueError, HTTPException) as error:
        # The error's own words may quote the address.
        what = getattr(error, "code", None) or type(getattr(error, "reason", None) or error).__name__
        log.warning("the alert about %s was not sent (%s); check %s", job_id, what, WEBHOOK_VARIABLE)
