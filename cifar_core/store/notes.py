"""What people say of test images: tags and notes, whatever run they saw the image in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, select

from cifar_core.errors import ConfigError
from cifar_core.store import schema
from cifar_core.store.frames import frame
from cifar_core.store.lifecycle import Lifecycle, check_whole
from cifar_core.store.runs import upsert
from cifar_core.store.values import clean_text, now

if TYPE_CHECKING:
    import pandas as pd

_MOST_TAG = 64
_MOST_NOTE = 10_000


class Notes(Lifecycle):
    """The part of the store that keeps tags."""

    def tag_image(self, fingerprint: str, index: int, tag: str, note: str = "") -> None:
        """Put a tag on a test image; the same tag again replaces its note.

        Args:
            fingerprint: of the dataset.
            index: place in its test set.
            tag: any text, 1 to 64 characters.
            note: any text, at most 10,000 characters.

        Raises:
            ConfigError: too long, or no tag.
        """
        check_whole("index", index, 0)
        tag, note = _as_stored(tag), clean_text(note)
        if not 0 < len(tag) <= _MOST_TAG or len(note) > _MOST_NOTE:
            raise ConfigError(
                f"A tag has 1 to {_MOST_TAG} characters and a note at most {_MOST_NOTE}; "
                f"got {len(tag)} and {len(note)}."
            )
        key = {"fingerprint": fingerprint, "image_index": index, "tag": tag}

        def write(connection: Connection, revision: int) -> None:
            upsert(
                connection, schema.image_notes, key, {"note": note, "created_at": now(), "revision": revision}
            )

        self._db.write(write)

    def untag_image(self, fingerprint: str, index: int, tag: str) -> bool:
        """Take a tag off again; False where it was not there."""
        table = schema.image_notes
        there = (
            table.c.fingerprint == fingerprint,
            table.c.image_index == index,
            table.c.tag == _as_stored(tag),
        )

        def remove(connection: Connection, _revision: int) -> bool:
            return connection.execute(delete(table).where(*there)).rowcount > 0

        return self._db.write(remove)

    def image_tags(self, fingerprint: str, tag: str | None = None) -> pd.DataFrame:
        """Tags of a dataset's test images in order of index: index, tag, note, created_at."""
        table = schema.image_notes
        columns = (table.c.image_index.label("index"), table.c.tag, table.c.note, table.c.created_at)
        query = select(*columns).where(table.c.fingerprint == fingerprint)
        query = query if tag is None else query.where(table.c.tag == _as_stored(tag))
        return self._db.read(
            lambda connection: frame(connection, query.order_by(table.c.image_index, table.c.tag))
        )


def _as_stored(tag: str) -> str:
    return clean_text(tag).strip()
