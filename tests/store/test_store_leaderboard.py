"""Ranking: what may be compared, and the numbers of a row."""

import os
import statistics
import time

import pytest
from sqlalchemy import insert

from cifar_core.errors import ConfigError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import schema
from cifar_core.store.columns import now
from cifar_core.store.settings_columns import settings_columns


def test_a_row_counts_averages_and_names_its_best(store, finish):
    accuracies = [0.60, 0.64, 0.62]
    ids = [finish(accuracy, seed=seed, variant="baseline") for seed, accuracy in enumerate(accuracies)]
    board = store.leaderboard()
    row = board.to_dict("records")[0]
    assert len(board) == 1
    assert (row["rank"], row["model"], row["variant"]) == (1, "base_cnn", "baseline")
    assert (row["runs"], row["settings"]) == (3, 1)
    assert row["accuracy"] == pytest.approx(0.62)
    assert row["sd"] == pytest.approx(statistics.stdev(accuracies))
    assert (row["best"], row["best_run"]) == (0.64, ids[1])
    assert (row["parameters"], row["training_s"]) == (100, 4.0)
    assert (row["images_per_second"], row["epochs"]) == (100.0, 2)
    assert row["ece"] == pytest.approx(0.05)
    assert (row["dataset"], row["source"], row["protocol"], row["subset"]) == (
        "cifar10", "local folder", "held-out", False,
    )  # fmt: skip


def test_equal_seeds_have_no_spread_and_one_has_none(store, finish):
    finish(0.1 + 0.2)
    assert store.leaderboard()["sd"].isna().all()
    finish(0.1 + 0.2, seed=1)
    assert store.leaderboard()["sd"].tolist() == [0.0]


def test_a_repeated_seed_is_no_further_run(store, finish):
    first = finish(0.60, seed=4, name="first")
    for accuracy in (0.90, 0.10):
        finish(accuracy, seed=4)
    row = store.leaderboard(by="settings").to_dict("records")[0]
    assert (row["runs"], row["repeats"], row["run_ids"]) == (1, 2, first)
    assert (row["accuracy"], row["best"], row["best_run"]) == (0.60, 0.60, first)
    assert row["sd"] != row["sd"]
    second = finish(0.70, seed=5)
    row = store.leaderboard().to_dict("records")[0]
    assert (row["runs"], row["repeats"], row["run_ids"]) == (2, 2, f"{first} {second}")
    assert row["accuracy"] == pytest.approx(0.65)
    assert row["sd"] == pytest.approx(statistics.stdev([0.6, 0.7]))


def test_only_finished_and_tested_runs_are_on_it(store, finish, begin):
    begin()
    store.create_run(TrainConfig())
    for end in ("stopped", "fail", "crash"):
        run_id = begin()
        getattr(store, end)(run_id, "x")
    store.finish(begin(), metrics={"accuracy": float("nan")})
    assert store.leaderboard().empty
    kept = finish(0.5)
    assert store.leaderboard()["best_run"].tolist() == [kept]


def test_its_standing_changes_with_what_a_board_shows_and_with_nothing_else(store, finish, begin):
    seen = [store.standing()]

    def changed():
        seen.append(store.standing())
        return seen[-1] != seen[-2]

    running = begin()
    assert changed()
    store.record_epoch(running, 1, {"accuracy": 0.5, "loss": 1.0})
    store.record_step(running, 2, 1, 10, {"loss": 1.0})
    store.heartbeat(running)
    store.event(running, "note", "x")
    assert not changed()
    store.finish(running, metrics={"accuracy": 0.7})
    assert changed()
    other = finish(0.6)
    assert changed()
    failed = begin()
    store.fail(failed, "x")
    assert changed()
    store.requeue(failed)
    assert changed()
    store.delete(other)
    assert changed()
    search_id = store.create_search(SearchConfig(model="base_cnn"))
    assert changed()
    store.delete(search_id)
    assert changed()


def test_what_cannot_be_compared_has_a_board_of_its_own(store, finish):
    finish(0.6, variant="baseline")
    finish(0.7, variant="tuned")
    finish(0.9, variant="tuned", protocol="test-selected")
    finish(0.95, variant="tuned", test_limit=100)
    finish(0.99, variant="tuned", dataset="synthetic")
    board = store.leaderboard()
    columns = ["dataset", "protocol", "subset", "rank", "accuracy"]
    assert [tuple(row) for row in board[columns].itertuples(index=False)] == [
        ("cifar10", "held-out", False, 1, 0.7),
        ("cifar10", "held-out", False, 2, 0.6),
        ("cifar10", "test-selected", False, 1, 0.9),
        ("synthetic", "held-out", False, 1, 0.99),
        ("cifar10", "held-out", True, 1, 0.95),
    ]
    narrow = store.leaderboard(dataset="cifar10", subset=False, protocol="held-out")
    assert narrow["accuracy"].tolist() == [0.7, 0.6]
    assert store.leaderboard(model="alexnet").empty


def test_other_images_under_the_same_name_do_not_rank_together(store, finish):
    finish(0.6)
    run_id = store.create_run(TrainConfig())
    store.claim(run_id, pid=os.getpid())
    store.begin(run_id, environment={}, dataset={"fingerprint": "beef"}, parameters=1)
    store.finish(run_id, metrics={"accuracy": 0.9})
    assert sorted(store.leaderboard()["rank"]) == [1, 1]


def test_a_variant_is_represented_by_the_setting_with_the_best_validation(store, finish):
    """A mean over two settings is the result of none, and the test images must not choose between them."""
    finish(0.5, preset="a", variant="custom", seed=1, validation=0.8)
    finish(0.7, preset="a", variant="custom", seed=2, validation=0.8)
    finish(0.9, preset="b", variant="custom", dropout=0.5, validation=0.7)
    row = store.leaderboard().to_dict("records")[0]
    assert (row["runs"], row["settings"], row["preset"]) == (2, 2, "a")
    assert (row["accuracy"], row["validation"]) == (pytest.approx(0.6), pytest.approx(0.8))
    split = store.leaderboard(by="settings")
    assert split["runs"].tolist() == [1, 2]
    assert split["settings"].tolist() == [2, 2]
    assert split["accuracy"].tolist() == pytest.approx([0.9, 0.6])
    assert split["settings_key"].nunique() == 2
    assert row["settings_key"] == split["settings_key"].tolist()[1]


def test_no_row_has_the_parameters_of_two_networks(store, finish):
    for parameters, settings in ((315_722, {"design": "paper"}), (122_570, {"design": "notebook"})):
        finish(0.6, variant="baseline", parameters=parameters, **settings)
    assert set(store.leaderboard()["parameters"]) <= {315_722, 122_570}
    assert set(store.leaderboard(by="settings")["parameters"]) == {315_722, 122_570}


@pytest.mark.parametrize("limit", ["train_limit", "test_limit"])
def test_runs_on_different_numbers_of_images_do_not_rank_together(store, finish, limit):
    for place, images in enumerate((2000, 3000, 8000)):
        finish(0.5 + place / 10, **{limit: images})
    assert store.leaderboard()["rank"].tolist() == [1, 1, 1]
    assert sorted(store.leaderboard()["runs"]) == [1, 1, 1]


def test_equal_numbers_of_test_images_rank_together_only_if_they_are_the_same(store, finish):
    finish(0.5, test_limit=20, indices=range(20), seed=0)
    finish(0.6, test_limit=20, indices=range(1, 21), seed=1)
    finish(0.7, test_limit=20, indices=[*range(19, -1, -1)], seed=2)
    board = store.leaderboard(by="settings")
    assert sorted(zip(board["runs"], board["accuracy"].round(6), strict=True)) == [(1, 0.6), (2, 0.6)]
    assert board["test_images"].nunique() == 2
    assert all(images.startswith("20-") for images in board["test_images"])


def test_a_limit_of_all_images_leaves_out_none(store):
    for seed, limit in enumerate((None, 10_000)):
        run_id = store.create_run(TrainConfig(seed=seed, test_limit=limit), claim_for=os.getpid())
        dataset = {"fingerprint": "f00d", "train_images": None, "test_images": None}
        store.begin(run_id, environment={}, dataset=dataset, parameters=1)
        store.finish(run_id, metrics={"accuracy": 0.5 + seed / 10})
    assert store.leaderboard(by="settings", subset=False)["rank"].tolist() == [1, 2]


def test_without_a_record_of_the_images_equal_seeds_had_equal_ones(store, finish):
    """As runs of earlier releases, whose draw of the test images was by the run's seed."""
    finish(0.5, test_limit=20, seed=0)
    finish(0.6, test_limit=20, seed=0, dropout=0.4)
    finish(0.7, test_limit=20, seed=1)
    assert store.leaderboard(by="settings")["rank"].tolist().count(1) == 2
    assert sorted(store.leaderboard()["test_images"]) == ["20 by seed 0", "20 by seed 1"]


def test_only_two_groupings_are_known(store):
    with pytest.raises(ConfigError, match="variant, settings"):
        store.leaderboard(by="model")


def test_a_tuned_row_says_what_its_searches_took_once_each(store):
    total = 0.0
    for _ in range(2):
        search_id = store.create_search(SearchConfig())
        store.claim(search_id, pid=os.getpid())
        time.sleep(0.02)
        store.finish_search(search_id)
        total += store.get_search(search_id).duration_s
        for seed in range(2):
            run_id = store.create_run(TrainConfig(variant="tuned", seed=seed), search_id=search_id)
            store.claim(run_id, pid=os.getpid())
            store.finish(run_id, metrics={"accuracy": 0.5})
    assert store.leaderboard()["search_s"].tolist() == [pytest.approx(total)]
    assert total > 0.03


def test_a_large_store_answers_quickly(store):
    """1,000 runs of 50 epochs; the bar is generous, since machines that test are busy."""
    settings = [
        settings_columns(TrainConfig(model=model, variant=variant))
        for model in ("base_cnn", "alexnet")
        for variant in ("baseline", "tuned", "custom")
    ]
    finished = {"state": "finished", "revision": 1}
    rows = [
        {**settings[place % 6], **finished, "id": f"run-{place}", "accuracy": place / 1000}
        for place in range(1000)
    ]
    epochs = [
        {"run_id": row["id"], "epoch": epoch, "loss": 1.0, "recorded_at": now(), "revision": 1}
        for row in rows
        for epoch in range(1, 51)
    ]
    for table, values in ((schema.runs, rows), (schema.epochs, epochs)):
        store._db.write(lambda c, _, table=table, values=values: c.execute(insert(table), values) and None)
    for call, count in ((store.leaderboard, 6), (store.runs, 1000)):
        call()
        start = time.perf_counter()
        assert len(call()) == count
        assert time.perf_counter() - start < 0.5
    start = time.perf_counter()
    news, _ = store.live([f"run-{place}" for place in range(20)])
    assert len(news.epochs) == 1000
    assert time.perf_counter() - start < 0.5


def test_two_number_formats_are_two_settings(store):
    """With precision="auto" two machines may choose differently, and the settings look the same."""
    for seed, precision in enumerate(("float32", "mixed_bfloat16", "float32")):
        run_id = store.create_run(TrainConfig(seed=seed))
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment={"precision": precision}, dataset={}, parameters=1)
        store.finish(run_id, metrics={"accuracy": 0.5 + seed / 10})
    rows = store.leaderboard(by="settings").to_dict("records")
    assert sorted((row["runs"], round(row["accuracy"], 6)) for row in rows) == [(1, 0.6), (2, 0.6)]
