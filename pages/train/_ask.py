"""Answers of trained models for the page: asked in the background, kept for a while."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_core.inference import Answer, Inference
from pages.shared.tasks import Task, tasks
from pages.shared.waiting import wait_for

KEPT_ANSWERS = 200
QUICK_SECONDS = 0.7
"""An answer that comes within this time is shown at once, without a bar in between."""

_lock = threading.Lock()
_answers: OrderedDict[str, Answer] = OrderedDict()
_inference: list[Inference] = []


@dataclass(frozen=True)
class Question:
    """One image, one model. `explain` is a class, or `inference.PREDICTED`."""

    model: Path
    image: np.ndarray
    explain: int
    test_flip: bool

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.image.tobytes()).hexdigest()[:16]
        return f"{self.model} {self.model.stat().st_mtime_ns} {digest} {self.explain} {self.test_flip}"


def inference() -> Inference:
    """The one process of this server that asks models."""
    with _lock:
        if not _inference:
            _inference.append(Inference())
        return _inference[0]


def close() -> None:
    """End that process and forget all answers."""
    with _lock:
        while _inference:
            _inference.pop().close()
        _answers.clear()


def answers_or_wait(questions: list[Question]) -> list[Answer] | None:
    """One answer for each question, or None while they are being found: then progress is shown, and
    the page comes back by itself."""
    keys = [question.key for question in questions]
    found = [_answers.get(key) for key in keys]
    if all(answer is not None for answer in found):
        return [answer for answer in found if answer is not None]
    task_key = "ask " + hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
    done = threading.Event()

    def start() -> Task:
        return tasks().start(task_key, lambda task: _ask_all(task, questions, done))

    if tasks().get(task_key) is None:
        start()
        if done.wait(QUICK_SECONDS) and all(key in _answers for key in keys):
            tasks().forget(task_key)
            return [_answers[key] for key in keys]
    wait_for(task_key, start, "Asking")
    return None


def _ask_all(task: Task, questions: list[Question], done: threading.Event) -> None:
    try:
        for place, question in enumerate(questions):
            if task.stop.is_set():
                return
            warm = inference().running()
            loading = "" if warm else "loading the framework first, some ten seconds; "
            task.report((place + 0.2) / len(questions), f"{loading}model {place + 1} of {len(questions)}")
            if question.key not in _answers:
                _remember(question)
    finally:
        done.set()


def _remember(question: Question) -> None:
    answer = inference().ask(
        question.model, question.image[None], explain=question.explain, test_flip=question.test_flip
    )
    with _lock:
        _answers[question.key] = answer
        while len(_answers) > KEPT_ANSWERS:
            _answers.popitem(last=False)
