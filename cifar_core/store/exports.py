"""What runs were exported as: one row per run, format and quantization, the last one wins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from cifar_core.errors import ConfigError
from cifar_core.store import schema
from cifar_core.store.frames import frame
from cifar_core.store.lifecycle import Lifecycle, check_whole, find_id, state_of
from cifar_core.store.runs import upsert
from cifar_core.store.values import clean_text, now, number

if TYPE_CHECKING:
    import pandas as pd

_SHARES = ("agreement", "accuracy", "reference_accuracy")
_FIGURES = (*_SHARES, "max_difference", "latency_ms", "reference_latency_ms")
_NEVER_MISSING = ("agreement", "max_difference")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COLUMNS = (
    "format", "quantize", "bytes", "images", "verified_on", "agreement", "max_difference", "accuracy",
    "reference_accuracy", "latency_ms", "reference_latency_ms", "created_at", "sha256",
)  # fmt: skip


class Exports(Lifecycle):
    """The part of the store that keeps what is known of exported files. It keeps no file."""

    def record_export(
        self,
        run_id: str,
        *,
        format: str,  # noqa: A002 - the word of `export_model`
        quantize: str | None,
        bytes: int,  # noqa: A002 - the word of `ExportResult`
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
        """Write down one export; an earlier one of the same format and quantization is replaced.

        The arguments mean what they mean in `cifar_core.serving.formats.ExportResult`. `run_id` whole.

        Raises:
            ConfigError: a figure that can't be: bytes or images below 1, a share outside 0..1, a
                difference or latency below 0, no SHA-256. Nothing was changed.
            RunNotFoundError: no such run.
        """
        check_whole("bytes", bytes, 1)
        check_whole("images", images, 1)
        if not _DIGEST.fullmatch(sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits; got {sha256!r}.")
        given = locals()
        figures = {name: _figure(name, given[name]) for name in _FIGURES}
        key = {"run_id": run_id, "format": clean_text(format), "quantize": clean_text(quantize or "")}
        values = {**figures, "bytes": bytes, "sha256": sha256, "images": images}
        values |= {"verified_on": clean_text(verified_on)[:120], "created_at": now()}

        def write(connection: Connection, revision: int) -> None:
            state_of(connection, run_id)
            upsert(connection, schema.exports, key, {**values, "revision": revision})

        self._db.write(write)

    def exports(self, run_id: str) -> pd.DataFrame:
        """What a run was exported as, one row per format and quantization: format, quantize ("" for
        none), bytes, images, verified_on, agreement, max_difference, accuracy, reference_accuracy,
        latency_ms, reference_latency_ms, created_at, sha256.

        Args:
            run_id: whole id, or the beginning of it.

        Raises:
            RunNotFoundError: no such run.
        """
        table = schema.exports
        columns = [table.c[name] for name in _COLUMNS]

        def read(connection: Connection) -> pd.DataFrame:
            query = select(*columns).where(table.c.run_id == find_id(connection, run_id))
            return frame(connection, query.order_by(table.c.format, table.c.quantize))

        return self._db.read(read)


def _figure(name: str, given: Any) -> float | None:
    value = number(given)
    most = 1.0 if name in _SHARES else float("inf")
    if (value is None and name in _NEVER_MISSING) or (value is not None and not 0 <= value <= most):
        raise ConfigError(f"{name} must be a number from 0{' to 1' if most == 1 else ''}; got {given!r}.")
    return value
