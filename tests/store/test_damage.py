"""A damaged, empty, lost or full store says so, names what is damaged, and gives everything else."""

import json
import os
import shutil
import sqlite3
from types import SimpleNamespace

import pytest

from cifar_core.cli import main
from cifar_core.errors import RunNotFoundError, StoreDamagedError, StoreError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, advice
from cifar_core.store.archive.backup import backup, restore
from cifar_core.store.archive.pack import pack
from cifar_core.store.archive.rebuild import rebuild
from tests.store.full_store import trained


@pytest.fixture
def three(home):  # noqa: ARG001 - where the store is
    """The ids of three finished runs in the closed store of the home folder."""
    with RunStore() as store:
        return [trained(store, seed=seed) for seed in range(3)]


def execute(home, *statements):
    connection = sqlite3.connect(home / "lab.db")
    with connection:
        for statement in statements:
            connection.execute(*statement)
    connection.close()


WRONG = [
    ("runs", "config", "{", "runs.config"),
    ("runs", "state", "garbage", "runs.state"),
    ("runs", "metrics", "[1]", "runs.metrics"),
    ("runs", "created_at", "yesterday", "runs.created_at"),
    ("runs", "epochs_done", "three", "runs.epochs_done"),
    ("runs", "accuracy", b"\xff", "runs.accuracy"),
    ("epochs", "loss", "low", "epochs.loss"),
    ("epochs", "epoch", "first", "epochs.epoch"),
]


@pytest.mark.parametrize(("table", "column", "value", "place"), WRONG)
def test_a_damaged_row_names_its_run_and_spares_the_others(
    home, three, tmp_path, table, column, value, place
):
    bad, *good = three
    owner = "id" if table == "runs" else "run_id"
    execute(home, (f"UPDATE {table} SET {column} = ? WHERE {owner} = ? AND rowid % 3 = 1", [value, bad]))
    with RunStore() as store:
        with pytest.raises(StoreDamagedError, match=rf"{bad} is damaged.*{place}.*rebuild"):
            store.job_rows(bad)
        with pytest.raises(StoreDamagedError, match=rf"{bad} is damaged"):
            store.get(bad) and store.history(bad)
        assert {*good} <= {*store.runs()["id"]}
        assert len(store.leaderboard()) == 1
        assert [len(store.history(run_id)) for run_id in good] == [3, 3]
        pack(store, good, tmp_path / "good.zip")
        with pytest.raises(StoreDamagedError, match=bad):
            pack(store, three, tmp_path / "all.zip")
        assert set(backup(store, tmp_path / "lab.zip").left_out) == {bad}
    restore(tmp_path / "lab.zip", tmp_path / "copy")
    with RunStore(tmp_path / "copy") as copy:
        assert {*copy.runs()["id"]} == {*good}
    done = rebuild()
    assert (done.kept, done.found, done.lost) == (2, (bad,), {})
    with RunStore() as store:
        assert store.get(bad).state is RunState.FINISHED
        assert len(store.history(bad)) == 3
        assert store.notices() == []


@pytest.mark.parametrize(
    ("table", "column"),
    [("searches", "plan"), ("searches", "config"), ("trials", "settings"), ("trials", "extra")],
)
def test_a_searchs_json_of_another_shape_is_damage_that_names_it(home, capsys, table, column):
    with RunStore() as store:
        search_id = store.create_search(SearchConfig(), claim_for=os.getpid())
        store.begin_search(search_id, environment={}, dataset={}, plan={})
        store.record_trial(search_id, "a", number=1, settings={}, extra={})
        sound = store.create_search(SearchConfig())
    execute(home, (f"UPDATE {table} SET {column} = '4611686018427387904'",))
    if table == "searches":
        assert main(["show", search_id]) == 1
        assert f"{search_id} is damaged in the store ({table}.{column}" in capsys.readouterr().err
    with RunStore() as store:
        if table == "trials":
            assert store.live_search(search_id)[0].trials == []
            with pytest.raises(StoreDamagedError, match=rf"{search_id} is damaged.*{table}.{column}"):
                store.trials(search_id)
        assert store.trials(sound).empty


def test_the_commands_name_what_is_damaged_and_go_on(home, three, tmp_path, capsys):
    execute(home, ("UPDATE runs SET metrics = 'x' WHERE id = ?", [three[0]]))
    execute(home, ("UPDATE runs SET state = 'x' WHERE id = ?", [three[1]]))
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert three[2] in out
    assert f"{three[1]} is damaged" in err
    assert main(["backup", str(tmp_path / "lab.zip")]) == 0
    out, err = capsys.readouterr()
    assert "1 run," in out
    assert all(f"left out {run_id}" in err for run_id in three[:2])
    assert main(["show", three[0]]) == 1
    assert f"{three[0]} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["missing", "empty"])
def test_a_lost_database_is_no_new_store_and_is_rebuilt_from_the_folders(home, three, tmp_path, capsys, lost):
    with RunStore() as store:
        expected = {run_id: store.job_rows(run_id) for run_id in three}
    if lost == "empty":
        (home / "lab.db").write_bytes(b"")
    else:
        (home / "lab.db").unlink()
    for command in (["runs"], ["backup", str(tmp_path / "lab.zip")], ["train", "--epochs", "1"]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "3 runs" in err
        assert three[0] in err
        assert "cifar-lab rebuild" in err
    assert not (tmp_path / "lab.zip").exists()
    assert main(["rebuild", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"] == sorted(three)
    with RunStore() as store:
        for run_id in three:
            assert store.job_rows(run_id)["epochs"] == [
                {**row, "revision": store.job_rows(run_id)["epochs"][0]["revision"]}
                for row in expected[run_id]["epochs"]
            ]
            assert store.get(run_id).metrics == json.loads(expected[run_id]["runs"][0]["metrics"])
            assert len(store.prediction_arrays(run_id)[0]) == 20
        assert store.notices() == []


def test_runs_that_an_older_copy_of_the_database_lacks_are_added(home, three, tmp_path, capsys):  # noqa: ARG001
    shutil.copy(home / "lab.db", tmp_path)
    with RunStore() as store:
        newer = trained(store, state="crashed")
    shutil.copy(tmp_path / "lab.db", home)
    assert main(["runs"]) == 0
    assert f"does not know ({newer})" in " ".join(capsys.readouterr().err.split())
    done = rebuild()
    assert (done.kept, done.found, done.previous) == (3, (newer,), None)
    with RunStore() as store:
        store.requeue(newer)


def test_a_folder_without_a_readable_record_is_named_and_left_alone(home, three):
    (home / "lab.db").unlink()
    (home / "artifacts" / three[0] / ".record.json").write_text("{")
    (home / "artifacts" / three[1] / ".record.json").unlink()
    done = rebuild()
    assert done.found == (three[2],)
    assert set(done.lost) == set(three[:2])
    assert (home / "artifacts" / three[0] / "model.keras").exists()


@pytest.mark.parametrize("rows", [None, 3, "x", [[]], [None], {}, {"id": 1}])
def test_a_table_of_a_record_that_holds_something_else_is_named(home, three, rows):
    (home / "lab.db").unlink()
    record = home / "artifacts" / three[0] / ".record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "epochs": rows}))
    (home / "artifacts" / three[1] / ".record.json").unlink()
    os.mkfifo(home / "artifacts" / three[1] / ".record.json")
    done = rebuild()
    assert (done.found, set(done.lost)) == ((three[2],), set(three[:2]))


def test_runs_of_an_older_release_get_their_record_when_the_app_starts(home, three):
    record = home / "artifacts" / three[0] / ".record.json"
    content = record.read_text()
    record.unlink()
    with RunStore() as store:
        store.sweep()
    assert record.read_text() == content


def test_a_damaged_row_does_not_keep_an_older_store_from_opening(home, three):
    execute(
        home,
        ("ALTER TABLE runs DROP COLUMN train_images",),
        ("ALTER TABLE runs DROP COLUMN test_images",),
        ("UPDATE alembic_version SET version_num = '0003'",),
        ("UPDATE runs SET subset = 1, config = '{' WHERE id = ?", [three[0]]),
    )
    with RunStore() as store:
        assert store.get(three[1]).epochs_done == 3
        with pytest.raises(StoreDamagedError, match=three[0]):
            store.get(three[0])


def test_a_damaged_database_gives_what_its_other_pages_hold(home):
    with RunStore() as store:
        ids = [trained(store, seed=seed) for seed in range(12)]
    content = bytearray((home / "lab.db").read_bytes())
    place = content.index(b'"seed": 5') // 4096 * 4096
    content[place : place + 4096] = b"\xff" * 4096
    (home / "lab.db").write_bytes(content)
    with RunStore() as store:
        found = set(store.runs()["id"])
        assert 8 <= len(found) < 12
        for run_id in found:
            assert store.get(run_id).epochs_done == 3
    done = rebuild()
    assert done.lost == {}
    assert done.previous is not None
    with RunStore() as store:
        assert set(store.runs()["id"]) == set(ids)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE epochs", "is damaged: a table is missing"),
        ("DROP TABLE alembic_version", "is damaged: its revision is missing"),
        ("ALTER TABLE runs DROP COLUMN stage", "is damaged: a column is missing"),
    ],
)
def test_missing_parts_are_damage_and_are_rebuilt(home, three, statement, message):
    def ask():
        with RunStore() as store:
            return store.history(three[0]), store.get(three[0])

    execute(home, (statement,))
    with pytest.raises(StoreDamagedError, match=message):
        ask()
    assert set(rebuild().found) == set(three)


def test_a_damaged_counter_is_counted_anew(home, three):
    execute(home, ("DELETE FROM counter",))
    with RunStore() as store:
        before = store.cursor()
        store.event(three[0], "note", "written")
        assert store.cursor() == before + 1 > 10


def test_damaged_text_in_a_message_of_sqlite_is_damage(home, three):
    """SQLite quotes a damaged schema, and Python's driver cannot decode its message."""
    with RunStore() as store, RunStore() as reader:
        reader.cursor()
        store.cursor()  # both have read the schema before it is damaged
        execute(
            home,
            ("PRAGMA writable_schema = ON",),
            ("UPDATE sqlite_master SET sql = CAST(x'4352454154452054ff' AS TEXT) WHERE name = 'epochs'",),
            ("PRAGMA schema_version = 1000",),
        )
        with pytest.raises(StoreDamagedError, match="is damaged"):
            store.history(three[0])
        with pytest.raises(StoreDamagedError, match="is damaged"):
            reader.job_rows(three[0])
    assert set(rebuild().found) == set(three)


def test_files_of_other_names_are_in_no_backup_and_no_pack(home, three, tmp_path):
    folder = home / "artifacts" / three[0]
    for name in ("ünsinn.txt", "two words.txt", "lone \udcff.txt", "a..b"):
        (folder / name).write_text("mine")
    with RunStore() as store:
        assert backup(store, tmp_path / "lab.zip").left_out == {}
        pack(store, three, tmp_path / "runs.zip")
    restore(tmp_path / "lab.zip", tmp_path / "copy")
    assert (folder / "ünsinn.txt").read_text() == "mine"


def test_a_folder_in_the_place_of_the_database_is_said(home):
    (home / "lab.db").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"lab\.db is a folder"):
        RunStore()


@pytest.mark.parametrize("cause", ["disk I/O error", "unable to open database file"])
def test_a_full_disk_is_called_full_also_for_reading(tmp_path, monkeypatch, cause):
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(advice.shutil, "disk_usage", lambda _: usage)
    file = tmp_path / "lab.db"
    assert "the disk is full" in str(advice.explained(cause, str(file), file, 30))
    usage.free = 10**9
    assert "disk is full" not in str(advice.explained(cause, str(file), file, 30))


def test_a_store_that_is_removed_while_it_is_used_is_gone_and_not_made_again(home, three):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig(), claim_for=os.getpid())
        store.begin(run_id, environment={}, dataset={}, parameters=1)
        shutil.rmtree(home)
        for write in (
            lambda: store.record_step(run_id, 1, 1, 2, {}),
            lambda: store.write_artifact(run_id, "checkpoint.npz", b""),
            lambda: store.get(three[0]),
        ):
            with pytest.raises(StoreDamagedError, match="is gone: the file was moved or removed"):
                write()
    assert not home.exists()


def test_a_training_whose_home_is_removed_ends_at_once_and_says_why(home, monkeypatch):
    from cifar_core.training import failures

    monkeypatch.setattr(failures.time, "sleep", lambda _: pytest.fail("it waits for a store that is gone"))

    def train(store):
        run_id = store.create_run(TrainConfig(), claim_for=os.getpid())
        with failures.recorded_end(store, run_id):
            shutil.rmtree(home)
            store.set_stage(run_id, "epoch 1")

    with RunStore() as store, pytest.raises(StoreDamagedError, match="is gone"):
        train(store)


def test_a_database_that_was_replaced_is_the_one_that_is_read(home, three, tmp_path):
    with RunStore() as store, RunStore(tmp_path / "other") as other:
        newer = trained(other)
        other.close()
        os.replace(tmp_path / "other" / "lab.db", home / "lab.db")
        for side in ("-wal", "-shm"):
            (home / f"lab.db{side}").unlink(missing_ok=True)
        assert store.runs()["id"].tolist() == [newer]
        with pytest.raises(RunNotFoundError):
            store.get(three[0])


def test_a_run_that_another_object_resumed_and_ended_can_be_resumed(home):  # noqa: ARG001
    with RunStore() as first, RunStore() as second:
        run_id = first.create_run(TrainConfig(), claim_for=os.getpid())
        first.begin(run_id, environment={}, dataset={}, parameters=1)
        first.stopped(run_id)
        second.requeue(run_id)
        assert second.claim(run_id, pid=os.getpid())
        second.begin(run_id, environment={}, dataset={}, parameters=1)
        second.fail(run_id, "for the test")
        first.requeue(run_id)
        assert first.claim(run_id, pid=os.getpid())
        first.begin(run_id, environment={}, dataset={}, parameters=1)
        assert first.get(run_id).attempt == 3


def test_the_variable_names_the_store_of_the_app_and_the_commands(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR_LAB_STORE", f"sqlite:///{tmp_path}/elsewhere.db")
    with RunStore() as store:
        run_id = trained(store)
        assert store.artifacts_root == tmp_path / "elsewhere.artifacts"
    assert main(["runs"]) == 0
    assert run_id in capsys.readouterr().out
    assert not home.exists()


@pytest.mark.postgresql
def test_the_variable_may_name_postgresql(postgresql, home, monkeypatch, capsys):
    from pages.shared import resources

    url = postgresql()
    monkeypatch.setenv("CIFAR_LAB_STORE", url)
    with RunStore() as store:
        run_id = trained(store)
        assert store.location.startswith("postgresql+psycopg://")
        assert store.artifacts_root == home / "artifacts"
    assert main(["runs"]) == 0
    assert run_id in capsys.readouterr().out
    try:
        assert resources.store().get(run_id).state is RunState.FINISHED
    finally:
        resources.forget_everything()
