"""The database of runs and searches, and the folder of their files.

from cifar_core.store import RunStore
"""

from cifar_core.store.records import Artifact, Live, LiveSearch, RunRecord, SearchRecord
from cifar_core.store.states import RunState
from cifar_core.store.store import RunStore

__all__ = ["Artifact", "Live", "LiveSearch", "RunRecord", "RunState", "RunStore", "SearchRecord"]
