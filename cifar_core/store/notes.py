"""Figures of exported files, tags on test images, and what people noted of runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, select

from cifar_core.errors import ConfigError
from cifar_core.store import schema
from cifar_core.store.columns import clean_text, now, number
from cifar_core.store.jobs import check_integer, state_of, upsert
from cifar_core.store.lifecycle import Lifecycle

if TYPE_CHECKING:
    import pandas as pd

_MAX_TAG_LENGTH = 64
_MAX_NOTE_LENGTH = 10_000
_FRACTIONS = ("agreement", "accuracy", "reference_accuracy")
_FIGURES = (*_FRACTIONS, "max_difference", "latency_ms", "reference_latency_ms")
_REQUIRED = ("agreement", "max_difference")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COLUMNS = (
    "format", "quantize", "bytes", "images", "verified_on", "agreement", "max_difference", "accuracy",
    "reference_accuracy", "latency_ms", "reference_latency_ms", "created_at", "sha256",
)  # fmt: skip


class Notes(Lifecycle):
    """The part of the store that keeps figures of exported files (not the files) and image tags."""

    def record_export(
        self,
        run_id: str,
        *,
        format: str,  # noqa: A002 - as in `export_model`
        quantize: str | None,
        bytes: int,  # noqa: A002 - as in `ExportResult`
        sha256: str,
        images: int,
        verified_on: str,
        agreement: float,
        max_difference: float,
        accuracy: float | None = None,
        reference_accuracy: float | None = None,
        latency_ms: float | None = None,
        reference_latency_ms: float | None = None,
    ) -> None:
        """Record one export; replaces an earlier one of the same format and quantization.

        The arguments are fields of `cifar_core.serving.formats.ExportResult`; `run_id` is a whole id.

        Raises:
            ConfigError: bytes or images below 1, a fraction outside 0..1, a difference or latency below
                0, or no SHA-256. Nothing was changed.
            RunNotFoundError: no such run.
        """
        arguments = locals()
        check_integer("bytes", bytes, 1)
        check_integer("images", images, 1)
        if not _SHA256.fullmatch(sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits; got {sha256!r}.")
        figures = {name: _figure(name, arguments[name]) for name in _FIGURES}
        key = {"run_id": run_id, "format": clean_text(format), "quantize": clean_text(quantize or "")}
        values = {**figures, "bytes": bytes, "sha256": sha256, "images": images}
        values |= {"verified_on": clean_text(verified_on)[:120], "created_at": now()}

        def write(connection: Connection, revision: int) -> None:
            state_of(connection, run_id)
            upsert(connection, schema.exports, key, {**values, "revision": revision})

        self._db.write(write)
        self.keep_record(run_id)

    def exports(self, run_id: str | None = None) -> pd.DataFrame:
        """Exports of a run, one row per format and quantization: format, quantize ("" for none),
        bytes, images, verified_on, agreement, max_difference, accuracy, reference_accuracy,
        latency_ms, reference_latency_ms, created_at, sha256.

        Args:
            run_id: whole id, or the beginning of it; None for those of all runs, led by run_id.

        Raises:
            RunNotFoundError: no such run.
        """
        table = schema.exports
        columns = [table.c[name] for name in _COLUMNS]
        if run_id is None:
            return self._frame(select(table.c.run_id, *columns).order_by(table.c.run_id))
        query = select(*columns).order_by(table.c.format, table.c.quantize)
        return self._frame_of(run_id, query, table.c.run_id)

    def tag_image(self, fingerprint: str, index: int, tag: str, note: str = "") -> None:
        """Put a tag on a test image; the same tag again replaces its note.

        Args:
            fingerprint: of the dataset.
            index: position in its test set, from 0.
            tag: any text, 1 to 64 characters.
            note: any text, at most 10,000 characters.

        Raises:
            ConfigError: an empty tag, or a text that is too long.
        """
        self.tag_images(fingerprint, [index], tag, note)

    def tag_images(self, fingerprint: str, indices: Sequence[int], tag: str, note: str = "") -> None:
        """`tag_image` for several test images: all of them get the tag, or none on an error."""
        for index in indices:
            check_integer("index", index, 0)
        tag, note = _stored_tag(tag), clean_text(note)
        if not 0 < len(tag) <= _MAX_TAG_LENGTH or len(note) > _MAX_NOTE_LENGTH:
            raise ConfigError(
                f"A tag has 1 to {_MAX_TAG_LENGTH} characters and a note at most {_MAX_NOTE_LENGTH}; "
                f"got {len(tag)} and {len(note)}."
            )
        values = {"note": note, "created_at": now()}

        def write(connection: Connection, revision: int) -> None:
            for index in indices:
                key = {"fingerprint": fingerprint, "image_index": index, "tag": tag}
                upsert(connection, schema.image_notes, key, {**values, "revision": revision})

        self._db.write(write)

    def untag_image(self, fingerprint: str, index: int, tag: str) -> bool:
        """Remove a tag; False where the image did not have it."""
        return self.untag_images(fingerprint, [index], tag) > 0

    def untag_images(self, fingerprint: str, indices: Sequence[int], tag: str) -> int:
        """Remove a tag from test images; how many of them had it."""
        table = schema.image_notes
        matches = (table.c.image_index.in_(list(indices)), table.c.tag == _stored_tag(tag))
        statement = delete(table).where(table.c.fingerprint == fingerprint, *matches)
        return self._db.write(lambda connection, _: connection.execute(statement).rowcount)

    def image_tags(self, fingerprint: str, tag: str | None = None) -> pd.DataFrame:
        """Tags of a dataset's test images in order of index: index, tag, note, created_at."""
        table = schema.image_notes
        columns = (table.c.image_index.label("index"), table.c.tag, table.c.note, table.c.created_at)
        query = select(*columns).where(table.c.fingerprint == fingerprint)
        query = query if tag is None else query.where(table.c.tag == _stored_tag(tag))
        return self._frame(query.order_by(table.c.image_index, table.c.tag))

    def last_messages(self, kinds: Iterable[str]) -> dict[str, dict[str, str]]:
        """The message of each run's last event of these kinds: {run id: {kind: message}}."""
        table = schema.events
        query = select(table.c.run_id, table.c.kind, table.c.message).order_by(table.c.id)
        query = query.where(table.c.kind.in_(list(kinds)), table.c.run_id.is_not(None))
        found: dict[str, dict[str, str]] = {}
        for run_id, kind, message in self._db.read(lambda connection: connection.execute(query).all()):
            found.setdefault(run_id, {})[kind] = message
        return found


def _figure(name: str, value: Any) -> float | None:
    figure = number(value)
    high = 1.0 if name in _FRACTIONS else float("inf")
    if (figure is None and name in _REQUIRED) or (figure is not None and not 0 <= figure <= high):
        raise ConfigError(f"{name} must be a number from 0{' to 1' if high == 1 else ''}; got {value!r}.")
    return figure


def _stored_tag(tag: str) -> str:
    return clean_text(tag).strip()
