"""Answers of trained models about one picture, for the page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_core.serving.inference import Answer
from pages.shared import background
from pages.shared.tasks import Task


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


def answers_or_wait(questions: list[Question]) -> list[Answer] | None:
    """One answer for each question, or None while they are being found: then progress is shown, and
    the page comes back by itself."""
    keys = " ".join(question.key for question in questions)
    key = "ask " + hashlib.sha256(keys.encode()).hexdigest()[:16]
    return background.known_or_wait(key, lambda task: _ask_all(task, questions), "Asking")


def _ask_all(task: Task, questions: list[Question]) -> list[Answer] | None:
    """What was asked before, beside other models, is not asked again. None: it was stopped."""
    answers = []
    for place, question in enumerate(questions):
        if task.stop.is_set():
            return None
        task.report(
            (place + 0.2) / len(questions), f"{background.loading()}model {place + 1} of {len(questions)}"
        )
        answer = background.known(question.key)
        if answer is None:
            answer = background.inference().ask(
                question.model, question.image[None], explain=question.explain, test_flip=question.test_flip
            )
            background.keep(question.key, answer)
        answers.append(answer)
    return answers
