"""The states of a run, a search and a trial."""

from enum import StrEnum


class RunState(StrEnum):
    """queued → running → finished / stopped / failed / crashed; stopping on the way to stopped."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to stop; the process has not yet said that it did."""
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    """It said itself what went wrong."""
    CRASHED = "crashed"
    """Its process ended without a word."""

    def is_finished(self) -> bool:
        """No process will touch it again, unless it is resumed."""
        return self not in UNFINISHED

    def is_active(self) -> bool:
        """A process works on it, or should."""
        return self in ACTIVE

    def is_resumable(self) -> bool:
        """It may go back to the queue and go on from its last completed epoch."""
        return self in RESUMABLE


ACTIVE = (RunState.RUNNING, RunState.STOPPING)
UNFINISHED = (RunState.QUEUED, *ACTIVE)
RESUMABLE = (RunState.STOPPED, RunState.FAILED, RunState.CRASHED)
