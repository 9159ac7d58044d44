"""Which process is which, and is it still alive: the ground on which the store calls a run dead.

A pid alone is not an identity: it is given to another process sooner or later. Nor is a start time
by the wall clock: it moves when the clock is set. On Linux a process is therefore known by the
boot of the machine, its pid namespace (containers) and its start in ticks since boot; elsewhere by
the start time that psutil reports.
"""

from __future__ import annotations

import functools
import os
import socket
from enum import Enum
from pathlib import Path

import psutil

_START_TOLERANCE_S = 1.0
"""psutil's start time may differ by rounding between two readings on other systems than Linux."""


class Liveness(Enum):
    """What can be said of a process from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It belongs to another host or container; only its heartbeat tells."""


def hostname() -> str:
    """The name by which this machine's processes sign."""
    return socket.gethostname()


def machine() -> str:
    """Host and pid namespace: where our pids mean what they say. The same after a reboot."""
    place = _linux_place()
    return hostname() if place is None else f"{hostname()}:{place.rpartition(':')[2]}"


def fingerprint(pid: int) -> str | None:
    """What tells this process from every other that had or will have its pid; None if there is none.

    At most 120 ASCII characters: "linux:<boot>:<pid namespace>:<ticks>" or "time:<seconds>".
    """
    place = _linux_place()
    if place is not None:
        ticks = _linux_start_ticks(pid)
        return None if ticks is None else f"{place}:{ticks}"
    try:
        return f"time:{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def liveness(pid: int | None, process: str | None, host: str | None) -> Liveness:
    """Whether the process that signed as (pid, fingerprint, host) still runs.

    A zombie counts as dead: it only waits for its parent to notice. A fingerprint of an earlier
    boot of this host is dead; one of another host or pid namespace is unknown.
    """
    if host is not None and host != hostname():
        return Liveness.UNKNOWN
    if pid is None or process is None:
        return Liveness.DEAD
    if _is_elsewhere(process):
        return Liveness.UNKNOWN
    same = _same(fingerprint(pid), process)
    return Liveness.ALIVE if same and not is_zombie(pid) else Liveness.DEAD


def _is_elsewhere(process: str) -> bool:
    """Is it of another pid namespace of this same boot, where our pids mean nothing?"""
    place = _linux_place()
    if place is None or not process.startswith("linux:"):
        return False
    boot, namespace = place.split(":")[1:3]
    parts = process.split(":")
    return parts[1] == boot and parts[2] != namespace


def _same(now: str | None, then: str) -> bool:
    if now is None or not (now.startswith("time:") and then.startswith("time:")):
        return now == then
    return abs(float(now[5:]) - float(then[5:])) <= _START_TOLERANCE_S


def is_zombie(pid: int) -> bool:
    """It has ended, or never was: nobody works under this pid, though its parent may not know yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@functools.cache
def _linux_place() -> str | None:
    """ "linux:<boot id>:<pid namespace>", or None on other systems."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return None
    return f"linux:{boot}:{namespace}"


def _linux_start_ticks(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command's name in brackets and may hold anything, brackets too.
    return stat.rpartition(")")[2].split()[19]
