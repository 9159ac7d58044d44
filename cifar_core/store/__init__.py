"""The database of runs and searches, and the folder of their files: `RunStore`."""

from cifar_core.store.records import (
    ACTIVE,
    UNFINISHED,
    Artifact,
    Live,
    LiveSearch,
    RunRecord,
    RunState,
    SearchRecord,
)
from cifar_core.store.store import RunStore

__all__ = [
    "ACTIVE",
    "UNFINISHED",
    "Artifact",
    "Live",
    "LiveSearch",
    "RunRecord",
    "RunState",
    "RunStore",
    "SearchRecord",
]
