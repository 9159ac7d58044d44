"""The one test of a trained model, on the test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifar_core.training.fitting import EVALUATION_BATCH
from cifar_core.training.network import on_one_device
from cifar_core.training.resolve import Setup

if TYPE_CHECKING:
    from cifar_core.training.result import Run


def test(setup: Setup, run: Run) -> None:
    """Predict the test images and add report, probabilities and latency to the run.

    Its model becomes the one that was tested: a copy on one device if several shared the training.
    """
    from cifar_core.analysis.evaluation import latency, predict_probabilities
    from cifar_core.analysis.metrics import report

    images, labels = setup.images.test
    run.model = on_one_device(setup.config, run.model, setup.compute.precision)
    flip = setup.config.test_flip
    run.probabilities = predict_probabilities(run.model, images, EVALUATION_BATCH, test_flip=flip)
    run.report = report(run.probabilities, labels)
    run.latency_ms = latency(run.model)
