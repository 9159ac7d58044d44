"""Failures inside a step: the loss is no number, memory is exhausted."""

import re

import pytest

from cifar_core.errors import DivergedError, TrainingError
from cifar_core.store import RunState, RunStore
from cifar_core.training.run import resume, train
from tests.faults.breaking import SMALL, alike
from tests.faults.observing import leftovers

pytestmark = pytest.mark.faults


def no_number(_self, _batch, logs):
    logs["loss"] = float("nan")


def no_room_on_the_device(_self, _batch, _logs):
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[64,32,32,64]")


def no_memory(_self, _batch, _logs):
    raise MemoryError("Unable to allocate 3.00 GiB for an array")


FAILURES = {
    no_number: (DivergedError, "no longer a finite number in epoch 2, step 2.*Lower the learning rate"),
    no_room_on_the_device: (TrainingError, "Out of memory. Use a smaller batch_size.*OOM when allocating"),
    no_memory: (TrainingError, "Out of memory. Use a smaller batch_size.*3.00 GiB"),
}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_it_fails_in_words_keeps_its_epochs_and_can_go_on(failure, tiny, monkeypatch):
    from cifar_core.training.callbacks import RunCallback  # loads Keras

    error, words = FAILURES[failure]
    original = RunCallback.on_train_batch_end

    def failing(self, batch, logs=None):
        if (self._epoch, batch) == (1, 1):
            failure(self, batch, logs)
        original(self, batch, logs)

    with RunStore() as store:
        run_id = store.create_run(SMALL)
        with monkeypatch.context() as patch:
            patch.setattr(RunCallback, "on_train_batch_end", failing)
            with pytest.raises(error, match=words):
                train(SMALL, dataset=tiny, store=store, run_id=run_id)
        record = store.get(run_id)
        assert (record.state, record.epochs_done) == (RunState.FAILED, 1)
        assert re.search(words, record.reason)
        assert leftovers(store) == []
        # Nothing of the failed epoch stays: what failed for want of memory may do well another time.
        assert alike(resume(run_id, store=store, dataset=tiny), train(SMALL, dataset=tiny))
