"""Processes: identity and liveness, by which the store marks runs as crashed, and memory.

A pid is reused sooner or later, and a start time by the wall clock moves when the clock is set. On Linux a
process is therefore identified by the boot of the machine, its pid namespace (containers) and its start in
ticks since boot; elsewhere by the start time that psutil reports.
"""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil

_START_TOLERANCE_S = 1.0
"""Tolerance for rounding of psutil's start time on other systems than Linux."""
MAX_GROWTH = 1.5
"""How many times the memory after its first task a process may occupy before another takes its place."""


class Liveness(Enum):
    """State of a process, as far as it can be seen from this machine."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It belongs to another host or container; only its heartbeat shows whether it runs."""


def hostname() -> str:
    """Host name that identifies this machine in the store."""
    return socket.gethostname()


def machine() -> str:
    """Host and pid namespace, within which pids are comparable; the same after a reboot."""
    place = _linux_place()
    return hostname() if place is None else f"{hostname()}:{place.rpartition(':')[2]}"


def fingerprint(pid: int) -> str | None:
    """Identity of a running process beyond its pid; None if there is no such process.

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
    """Whether the process recorded as (pid, fingerprint, host) still runs.

    A zombie, or a process of an earlier boot of this host, is dead; one of another host or pid namespace is
    unknown.
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
    """Whether it is in another pid namespace of this boot, with pids of its own."""
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


def memory(pid: int) -> int:
    """Bytes of memory that the process occupies now; 0 if it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@dataclass
class Growth:
    """How the memory of a process that carries out one task after another has grown since its first one.

    A framework gives back little of a model's memory: 5 MB of each base CNN stay, 150 MB of each ResNet-18.
    """

    first: int = 0

    def is_too_much(self, now: int) -> bool:
        """Whether the process, which occupies `now` bytes after a task, should be replaced."""
        self.first = self.first or now
        return now > MAX_GROWTH * self.first


def is_zombie(pid: int) -> bool:
    """Whether no process runs under this pid: it ended (its parent may not know yet) or never existed."""
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
    # The second field is the command in brackets, which may contain brackets itself.
    return stat.rpartition(")")[2].split()[19]
