"""What runs were exported as: recorded, replaced, read back, gone with their run."""

import math

import pytest

from cifar_core.errors import ConfigError, RunNotFoundError
from tests.store.full_store import EXPORT

ALL = {
    **EXPORT,
    "accuracy": 0.75,
    "reference_accuracy": 0.8,
    "latency_ms": 0.25,
    "reference_latency_ms": 5.0,
}


def test_what_is_recorded_is_read_back(store, finish):
    run_id = finish(0.5)
    assert store.exports(run_id).empty
    store.record_export(run_id, **ALL)
    (row,) = store.exports(run_id[:-2]).to_dict("records")
    assert row.pop("created_at").endswith("+00:00")
    assert row == {**ALL, "quantize": ""}


def test_the_last_one_of_a_format_and_quantization_wins(store, finish):
    run_id, other = finish(0.5), finish(0.6)
    store.record_export(run_id, **ALL)
    store.record_export(run_id, **{**ALL, "quantize": "int8", "bytes": 300})
    store.record_export(other, **ALL)
    store.record_export(run_id, **{**EXPORT, "bytes": 2000})
    rows = store.exports(run_id)
    assert rows[["format", "quantize", "bytes"]].to_numpy().tolist() == [
        ["tflite", "", 2000],
        ["tflite", "int8", 300],
    ]
    assert math.isnan(rows["accuracy"][0]), "what the last one did not measure is not the earlier one's"
    assert store.exports(other)["bytes"].tolist() == [1000]


def test_they_go_with_their_run_and_only_with_it(store, finish):
    run_id, other = finish(0.5), finish(0.6)
    for each in (run_id, other):
        store.record_export(each, **ALL)
    store.delete(run_id)
    assert store.job_rows(other)["exports"] != []
    with pytest.raises(RunNotFoundError):
        store.exports(run_id)
    with store.all_rows() as held:
        assert [row["run_id"] for row in held.rows("exports")] == [other]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 0}, "bytes must be a whole number from 1"),
        ({"images": 0}, "images must be a whole number from 1"),
        ({"images": 2.5}, "images must be a whole number"),
        ({"agreement": 1.01}, "agreement must be a number from 0 to 1; got 1.01"),
        ({"agreement": None}, "agreement must be a number"),
        ({"agreement": math.nan}, "agreement must be a number"),
        ({"accuracy": -0.1}, "accuracy must be a number from 0 to 1"),
        ({"reference_accuracy": 80}, "reference_accuracy must be a number from 0 to 1"),
        ({"max_difference": -1}, "max_difference must be a number from 0; got -1"),
        ({"latency_ms": -1}, "latency_ms must be"),
        ({"sha256": "abc"}, "sha256 must be 64"),
    ],
)
def test_figures_that_cannot_be_are_refused(store, finish, change, message):
    run_id = finish(0.5)
    with pytest.raises(ConfigError, match=message):
        store.record_export(run_id, **{**ALL, **change})
    assert store.exports(run_id).empty


def test_a_run_that_is_not_there(store, finish):
    finish(0.5)
    with pytest.raises(RunNotFoundError):
        store.record_export("base_cnn-ffffff", **ALL)
    with pytest.raises(RunNotFoundError):
        store.exports("base_cnn-ffffff")
