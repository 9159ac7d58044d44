"""Kinds of damage to a store's files, each drawn by a seeded `random.Random`."""

import json
import os
import shutil
import sqlite3
from contextlib import closing, suppress

TABLES = ["runs", "searches", "epochs", "trials", "trial_epochs", "events", "exports", "image_notes"]
SIDES = ["-wal", "-shm", "-journal"]
VALUES = [None, "", "garbage", "{", "[1,2]", "NaN", -1, 2**62, 1e300, float("inf"), b"\xff\xfe",
          "2026-13-45", "\0"]  # fmt: skip


# --- Of any file: (path, chance) ----------------------------------------------------------------------


def flip(path, chance):
    content = bytearray(path.read_bytes())
    if content:  # an index or a log may be empty
        for _ in range(chance.choice([1, 3, 20, 200])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path, chance):
    os.truncate(path, chance.randrange(path.stat().st_size or 1))


def lengthen(path, chance):
    path.write_bytes(path.read_bytes() + chance.choice([b"\0", b"\xff", chance.randbytes(100)]) * 50)


def empty(path, _chance):
    path.write_bytes(b"")


def overwrite_start(path, chance):
    content = path.read_bytes()
    path.write_bytes(chance.randbytes(chance.choice([1, 16, 100])) + content[100:])


def overwrite_page(path, chance):
    content = bytearray(path.read_bytes())
    start = chance.randrange(0, len(content) or 1, 4096)
    length = len(content[start : start + 4096])
    content[start : start + 4096] = chance.choice([b"\0", b"\xff", b"A", b"\xc3("]) * length
    path.write_bytes(content)


def remove(path, _chance):
    path.unlink()


def put_folder(path, _chance):
    path.unlink()
    path.mkdir()


def link_to_itself(path, _chance):
    path.unlink()
    path.symlink_to(path.name)


def link_nowhere(path, _chance):
    path.unlink()
    path.symlink_to("/nowhere/at all")


def forbid(path, _chance):
    path.chmod(0)


def make_pipe(path, _chance):
    path.unlink()
    os.mkfifo(path)


OF_FILES = [flip, flip, truncate, lengthen, empty, overwrite_start, remove, put_folder, link_to_itself,
            link_nowhere, forbid, make_pipe]  # fmt: skip


# --- Of the database: (path of lab.db, chance) -----------------------------------------------------------


def flip_header(path, chance):
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 2, 5])):
        content[chance.randrange(min(len(content), 120))] = chance.randrange(256)
    path.write_bytes(content)


def put_beside(path, chance):
    """A journal or an index of another database."""
    side = path.with_name(path.name + chance.choice(SIDES))
    side.unlink(missing_ok=True)
    if chance.random() < 0.2:
        side.mkdir()
    else:
        side.write_bytes(chance.randbytes(chance.choice([0, 32, 5000])))


def damage_beside(path, chance):
    """Damage to the log or its index, as a killed process leaves them; else to the database itself."""
    beside = [side for name in SIDES if (side := path.with_name(path.name + name)).exists()]
    chance.choice([*OF_FILES, overwrite_page])(chance.choice(beside or [path]), chance)


def change_value(path, chance):
    """A value of a random row and column, of any kind, also where it may not be missing."""
    table = chance.choice([*TABLES, "runs", "runs", "counter", "alembic_version"])
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        (rowid,) = chance.choice(connection.execute(f"SELECT rowid FROM {table}").fetchall() or [(1,)])
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = ?", [table]
        )
        version = connection.execute("PRAGMA schema_version").fetchone()[0]
        connection.execute(f"PRAGMA schema_version = {version + 1}")
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.IntegrityError), connection:
        change = f"UPDATE {table} SET {chance.choice(columns)} = ? WHERE rowid = ?"
        connection.execute(change, [chance.choice(VALUES), rowid])


def spoil_text(path, chance):
    """Bytes that are no UTF-8, as text."""
    table = chance.choice([*TABLES, "runs", "alembic_version"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        texts = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if "INT" not in row[2]]
        column = chance.choice(texts)
        spoilt = chance.choice(["ff", "c328", "41ff00", "eda080"])
        with suppress(sqlite3.IntegrityError):
            connection.execute(
                f"UPDATE {table} SET {column} = CAST(x'{spoilt}' AS TEXT) WHERE rowid IN "
                f"(SELECT rowid FROM {table} ORDER BY random() LIMIT 1)"
            )


def rename_in_schema(path, chance):
    """A damaged name in the schema, which SQLite quotes in its message."""
    content = path.read_bytes()
    name = chance.choice([b"CREATE TABLE runs", b"epochs_done", b"search_id", b"alembic_version", b"counter"])
    place = content.find(name)
    if place >= 0:
        place += chance.randrange(len(name))
        path.write_bytes(
            content[:place] + chance.choice([b"\xff", b"\0", b"'", b"\xc3"]) + content[place + 1 :]
        )


def drop_table(path, chance):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        table = chance.choice([*TABLES, "counter", "alembic_version", "steps"])
        connection.execute(chance.choice(["DROP TABLE", "DELETE FROM"]) + " " + table)


def drop_index(path, chance):
    with closing(sqlite3.connect(path)) as connection, connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        connection.execute(f"DROP INDEX {chance.choice(names.fetchall())[0]}")


def put_other_database(path, chance):
    """Another lab's database, another program's, or a text."""
    for side in SIDES:
        path.with_name(path.name + side).unlink(missing_ok=True)
    path.unlink()
    kind = chance.choice(["lab", "program", "text", "zip"])
    if kind == "lab":
        from cifar_core.store import RunStore

        with RunStore(path.parent / "another" / "lab.db") as other:
            other.tag_image("f00d", 1, "odd")
        shutil.move(path.parent / "another" / "lab.db", path)
    elif kind == "program":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE recipes (id INTEGER)")
    else:
        path.write_bytes(b"a letter to my aunt\n" * 500 if kind == "text" else b"PK\x03\x04" + b"\0" * 5000)


OF_DATABASES = [
    *(flip, flip, truncate, truncate, lengthen, empty, overwrite_start, remove, put_folder, link_to_itself),
    *(overwrite_page, overwrite_page, flip_header, forbid, put_beside, damage_beside, damage_beside),
    *(change_value, change_value, change_value, change_value, spoil_text, spoil_text, rename_in_schema),
    *(drop_table, drop_index, put_other_database),
]


# --- Of the folders: (folder with the runs' folders, chance) -> the runs that it touches ------------------


def _runs(root, chance, count):
    return chance.sample(sorted(path for path in root.iterdir() if path.is_dir()), count)


def swap_files(root, chance):
    """Two files, as a rule of two runs."""
    one, two = chance.sample(sorted(path for path in root.rglob("*") if path.is_file()), 2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    return {one.parent.name, two.parent.name}


def swap_same_files(root, chance):
    """The weights, checkpoints or records of two runs."""
    one, two = _runs(root, chance, 2)
    names = sorted({path.name for path in one.iterdir()} & {path.name for path in two.iterdir()})
    name = chance.choice(names)
    content = (one / name).read_bytes()
    (one / name).write_bytes((two / name).read_bytes())
    (two / name).write_bytes(content)
    return {one.name, two.name}


def swap_folders(root, chance):
    one, two = _runs(root, chance, 2)
    one.rename(root / "aside")
    two.rename(one)
    (root / "aside").rename(two)
    return {one.name, two.name}


def remove_folder(root, chance):
    (folder,) = _runs(root, chance, 1)
    shutil.rmtree(folder)
    return {folder.name}


def empty_folder(root, chance):
    name = remove_folder(root, chance)
    (root / next(iter(name))).mkdir()
    return name


def file_for_folder(root, chance):
    name = remove_folder(root, chance)
    (root / next(iter(name))).write_text("not a folder")
    return name


def folder_linked_to_itself(root, chance):
    name = remove_folder(root, chance)
    (root / next(iter(name))).symlink_to(next(iter(name)))
    return name


def forbid_folder(root, chance):
    (folder,) = _runs(root, chance, 1)
    folder.chmod(0)
    return {folder.name}


def odd_files(root, chance):
    """Names and kinds of files that no run writes."""
    (folder,) = _runs(root, chance, 1)
    (folder / "ünsinn \udcff.txt").write_bytes(b"?")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / ".hidden").write_bytes(b"?")
    (root / "notes.txt").write_text("mine")
    (root / "base_cnn-zzzzzz").symlink_to("base_cnn-zzzzzz")
    os.mkfifo(folder / "pipe")
    return {folder.name}


def damage_record(root, chance):
    """Other values, missing parts and other JSON in the copy of a run's rows."""
    path = _runs(root, chance, 1)[0] / ".record.json"
    content = json.loads(path.read_text())
    head = next(iter(content))
    kind = chance.choice(["value", "value", "table", "list", "deep", "id"])
    if kind == "value":
        content[head][0][chance.choice(sorted(content[head][0]))] = chance.choice(
            [None, "{", -1, 1e300, [1], {}]
        )
    elif kind == "table":
        del content[chance.choice(sorted(content))]
    elif kind == "list":
        content[chance.choice(sorted(content))] = chance.choice([None, 3, "x", {}, [None], [[]]])
    elif kind == "id":
        content[head][0]["id"] = "../../etc"
    path.write_text("[" * 100_000 if kind == "deep" else json.dumps(content))
    return {path.parent.name}


def no_root(root, chance):
    """The folder of all runs is gone, a file, or a link to itself."""
    names = {path.name for path in root.iterdir()}
    shutil.rmtree(root)
    {"gone": lambda: None, "file": lambda: root.write_text("?"), "loop": lambda: root.symlink_to(root.name)}[
        chance.choice(["gone", "file", "loop"])
    ]()
    return names


OF_FOLDERS = [swap_files, swap_same_files, swap_same_files, swap_folders, remove_folder, empty_folder,
              file_for_folder, folder_linked_to_itself, forbid_folder, odd_files, damage_record,
              damage_record, no_root]  # fmt: skip


def damage(home, chance):
    """Damage one thing in a home; gives (what was done, ids of the runs whose folder was touched, whether it
    is the database)."""
    drawn = chance.random()
    if drawn < 0.6:
        action = chance.choice(OF_DATABASES)
        action(home / "lab.db", chance)
        return f"{action.__name__} lab.db", set(), True
    root = home / "artifacts"
    if drawn < 0.75:
        action = chance.choice(OF_FOLDERS)
        return action.__name__, action(root, chance), False
    path = chance.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    action = chance.choice(OF_FILES)
    action(path, chance)
    return f"{action.__name__} {path.name}", {path.parent.name}, False
