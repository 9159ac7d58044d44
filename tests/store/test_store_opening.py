"""Opening: new, old, newer, foreign, damaged and forbidden stores."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from cifar_core.base import paths
from cifar_core.errors import StoreError, StoreVersionError
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, advice, schema, versions
from cifar_core.store import store as store_module
from tests.store.full_store import EXPORT, MIGRATIONS, contents, fill, from_the_first


def execute(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        rows = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    return rows


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_home_folder_file_and_url_are_the_same_store(home, tmp_path):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig())
        assert store.location == str(home / "lab.db")
    for location in (home, str(home), home / "lab.db", store.url, f"sqlite:///{home}/lab.db"):
        with RunStore(location) as again:
            assert again.get(run_id).id == run_id
            assert again.artifacts_root == home / "artifacts"
    with RunStore(tmp_path / "other") as other:
        assert other.runs().empty


@pytest.mark.parametrize("written", ["{}", '"{}"', "'{}'", " {}\n", "file://{}"])
@pytest.mark.parametrize("variable", ["CIFAR_LAB_HOME", "CIFAR_LAB_STORE"])
def test_a_home_and_a_store_are_understood_as_people_paste_them(tmp_path, monkeypatch, variable, written):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, written.format(tmp_path / "my lab"))
    with RunStore() as store:
        assert store.artifacts_root == tmp_path / "my lab" / "artifacts"


def test_a_blank_home_is_none_and_that_of_nobody_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, folder in ((" ", ".cifar-lab"), ("~nobody-of-this-name/x", "~nobody-of-this-name/x")):
        monkeypatch.setenv("CIFAR_LAB_HOME", value)
        assert paths.home() == tmp_path / folder


def test_a_server_that_is_not_there_is_said_with_what_to_do():
    cause = 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
    error = advice.explained(cause, "postgresql://x", None, 30)
    assert "cannot be reached. Start its server, or correct the address in CIFAR_LAB_STORE" in str(error)


def test_a_relative_url_keeps_its_meaning_after_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunStore("sqlite:///x.db") as store:
        run_id = store.create_run(TrainConfig())
        url = store.url
    monkeypatch.chdir("/")
    with RunStore(url) as store:
        assert store.get(run_id)


def test_the_connection_is_set_up_for_many_processes(store):
    assert execute(store.location, "PRAGMA journal_mode") == [[("wal",)]]

    def pragmas(connection):
        names = ("foreign_keys", "synchronous", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert store._db.read(pragmas) == [1, 1, 5000]


def test_opening_an_existing_store_is_one_query_and_no_alembic():
    RunStore().close()
    heavy = ("alembic", "pandas", "numpy", "tensorflow", "keras", "pydantic")
    code = (
        "import sys; from cifar_core.store import RunStore; RunStore(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_the_migrations_make_the_tables_that_new_stores_get(tmp_path):
    """Else a store that was brought up to date would differ from a new one."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    revisions = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    assert tuple(reversed(revisions)) == schema.REVISIONS
    engine = create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with engine.begin() as connection:
        versions.migrate(connection, from_the_first(tmp_path))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()
    with RunStore(tmp_path / "migrated.db") as store:
        assert store.get(store.create_run(TrainConfig())).state is RunState.QUEUED


WITHOUT_IMAGES = [f"ALTER TABLE runs DROP COLUMN {name}" for name in ("train_images", "test_images")]
OLDER = {"0002": ["DROP TABLE exports", *WITHOUT_IMAGES]}
"""How to make a store of an earlier revision out of one of today: what came later goes."""


@pytest.mark.parametrize("revision", OLDER)
def test_a_store_of_an_earlier_revision_keeps_every_row(home, revision):
    with RunStore() as store:
        fill(store)
        before, files = contents(store)
        run_id = store.runs(state="finished")["id"].item()
    execute(home / "lab.db", *OLDER[revision], f"UPDATE alembic_version SET version_num = '{revision}'")
    with RunStore() as store:
        assert store.exports(run_id).empty
        assert contents(store) == ({**before, "exports": []}, files)
        store.record_export(run_id, **EXPORT)
        assert store.exports(run_id)["images"].tolist() == [EXPORT["images"]]
        store.delete(run_id)
    version, left = execute(
        home / "lab.db", "SELECT version_num FROM alembic_version", "SELECT * FROM exports"
    )
    assert (version, left) == ([(schema.REVISIONS[-1],)], [])


def test_an_earlier_store_s_settings_are_keyed_as_they_are_now(home):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig(dropout=0.2))
        store.claim(run_id, pid=os.getpid())
        store.begin(run_id, environment={"precision": "float32"}, dataset={}, parameters=1)
        key = store.get(run_id).settings_key
    earlier = ("UPDATE runs SET settings_key = 'other'", "UPDATE alembic_version SET version_num = '0004'")
    execute(home / "lab.db", *earlier)
    with RunStore() as store:
        assert store.get(run_id).settings_key == key


def test_an_earlier_store_says_by_which_seed_its_test_images_were_drawn(home):
    limits = [
        {},
        {"train_limit": 2000},
        {"test_limit": 500, "seed": 3},
        {"train_limit": 50, "test_limit": 20},
    ]
    with RunStore() as store:
        runs = [store.create_run(TrainConfig(**limit)) for limit in limits]
    execute(home / "lab.db", *WITHOUT_IMAGES, "UPDATE alembic_version SET version_num = '0003'")
    with RunStore() as store:
        found = [(store.get(run).train_images, store.get(run).test_images) for run in runs]
    assert found == [(None, None), (2000, None), (None, "500 by seed 3"), (50, "20 by seed 0")]


@pytest.fixture
def newer_release(tmp_path, monkeypatch):
    """What the next release would bring: one more revision that makes `runs` anew with a column."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (folder / "versions" / "9999_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9999', '{schema.REVISIONS[-1]}'\n"
        "branch_labels = depends_on = None\n\n\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('runs', recreate='always') as batch:\n"
        "        batch.add_column(sa.Column('colour', sa.Text(), server_default='blue'))\n"
    )

    original = versions.migrate

    def install():
        monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
        monkeypatch.setattr(versions, "migrate", lambda connection: original(connection, folder))

    return install


def test_an_older_store_is_brought_up_to_date_with_nothing_lost(home, newer_release):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig(), state=RunState.RUNNING)
        store.record_epoch(run_id, 1, {"loss": 1.0})
    newer_release()
    with RunStore() as store:
        assert store.history(run_id)["epoch"].tolist() == [1], "children must outlive the table's making anew"
        assert store.get(run_id).epochs_done == 1
        store.finish(run_id, metrics={})
    rows = execute(home / "lab.db", "SELECT colour FROM runs", "SELECT version_num FROM alembic_version")
    assert rows == [[("blue",)], [("9999",)]]
    assert execute(home / "lab.db", "PRAGMA foreign_key_check") == [[]]


def test_a_migration_that_fails_changes_nothing(home, newer_release, monkeypatch):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig())
    newer_release()
    migrate = versions.migrate

    def fail(connection):
        migrate(connection)
        raise RuntimeError("the power went off")

    monkeypatch.setattr(versions, "migrate", fail)
    with pytest.raises(RuntimeError, match="power"):
        RunStore()
    monkeypatch.undo()
    monkeypatch.setenv("CIFAR_LAB_HOME", str(home))
    with RunStore() as store:
        assert store.get(run_id).state is RunState.QUEUED


def test_a_newer_store_is_refused_and_left_as_it_was(home):
    RunStore().close()
    execute(home / "lab.db", "UPDATE alembic_version SET version_num = '0999'")
    before = digest(home / "lab.db")
    with pytest.raises(StoreVersionError, match=r"revision 0999.*Install the newer release.*CIFAR_LAB_HOME"):
        RunStore()
    assert digest(home / "lab.db") == before
    assert [path.name for path in home.iterdir()] == ["lab.db"]


NO_DATABASES = [b"this is no database, it is a letter" * 100, b"SQLite format 3\0" + b"\xff" * 5000]


@pytest.mark.parametrize("content", NO_DATABASES)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(home, content):
    home.mkdir()
    (home / "lab.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"lab\.db (is not a database|is damaged).*rebuild"):
        RunStore()
    assert (home / "lab.db").read_bytes() == content


def test_a_damaged_store_is_an_error_in_words(home):
    with RunStore() as store:
        for _ in range(50):
            store.create_run(TrainConfig())
    size = (home / "lab.db").stat().st_size
    with open(home / "lab.db", "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreError, match=r"lab\.db is damaged.*Restore it"), RunStore() as store:
        store.runs()


def test_a_database_of_something_else_is_refused(home):
    home.mkdir()
    execute(home / "lab.db", "CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(StoreError, match=r"belongs to something else.*recipes"):
        RunStore()
    assert execute(home / "lab.db", "SELECT name FROM sqlite_master") == [[("recipes",)]]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?uri=true", "file: names are not supported"),
        ("nonsense://x", "No database driver for nonsense://x"),
        ("postgresql+nodriver://user:secret@host/name", r"No database driver.*\*\*\*"),
        ("://", "is not a database URL"),
    ],
)
def test_locations_that_cannot_be(location, message):
    with pytest.raises(StoreError, match=message) as caught:
        RunStore(location)
    assert "secret" not in str(caught.value)


def test_a_home_that_cannot_be_made(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "home", Path("/proc/cifar-lab")):
        monkeypatch.setenv("CIFAR_LAB_HOME", str(place))
        with pytest.raises(StoreError, match=f"needs to write to {place}.*CIFAR_LAB_HOME"):
            RunStore()
    assert not home.exists()


@pytest.fixture
def read_only():
    """A function that makes a folder read-only even for root; skips where that is not possible."""
    made = []

    def protect(folder):
        for options in (["--bind", str(folder)], ["-o", "remount,bind,ro"]):
            command = ["mount", *options, str(folder)]
            if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
                pytest.skip("needs the right to mount")
            made.append(folder)

    yield protect
    if made:
        subprocess.run(["umount", str(made[0])], check=True)


def test_a_read_only_home(home, read_only):
    home.mkdir()
    read_only(home)
    with pytest.raises(StoreError, match=rf"{home}.*CIFAR_LAB_HOME"):
        RunStore()


def test_a_read_only_home_that_holds_a_store(home, read_only):
    with RunStore() as store:
        run_id = store.create_run(TrainConfig())
    read_only(home)
    with pytest.raises(StoreError, match=rf"{home}.*CIFAR_LAB_HOME"), RunStore() as store:
        store.record_epoch(run_id, 1, {})


def test_a_folder_that_refuses_to_be_made_names_the_way_out(monkeypatch, tmp_path):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module.Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=f"{tmp_path}.*Permission denied.*CIFAR_LAB_HOME"):
        RunStore(tmp_path / "new" / "lab.db")


def test_a_column_of_the_schema_is_never_unknown_to_the_record():
    """What a record leaves out is left out on purpose."""
    from cifar_core.store.records import RunRecord, SearchRecord

    unread = {"config", "attempt_started_at", "beats", "process", "revision"}
    metrics = {"accuracy", "loss", "top2_accuracy", "ece", "latency_ms", "reset_revision"}
    for table, record, hidden in (
        (schema.runs, RunRecord, unread | metrics),
        (schema.searches, SearchRecord, unread),
    ):
        assert {column.name for column in table.columns} - set(record.__dataclass_fields__) == hidden
