"""What a program has used of its limits, from the outside: looked at now and then while it runs."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from .jail import SCRATCH_INODES
from .scratch import held_mb, unlinked_mb
from .verdict import MOST_WALL

_CPUS = os.cpu_count() or 1
_SHORTEST_LOOK = 0.02
_LONGEST_LOOK = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Order:
    """What the worker asks of a zygote: start one program under these limits."""

    serial: int
    role: str
    cpu_seconds: float
    wall_seconds: float
    memory_mb: int
    address_space_mb: int
    """Most of one process's addresses; 0 for as many as it likes, where something else counts its memory."""
    processes: int
    disk_mb: int
    collect: list[str]


@dataclass(slots=True)
class Watch:
    """What was seen of a running program and its children."""

    order: Order
    child: int
    """The program's first process."""
    first: int
    """The first process of a room made for the program, which is none of the program's; 0 where there is none."""
    alone: bool
    """No namespace holds the program: its processes are those this one started."""
    counts_memory: bool
    """No cgroup does."""
    asks: bool = False
    """Whoever attends asks the worker before a program is ended that seems to have slept too long."""
    started: float = field(default_factory=time.monotonic)
    reason: str = ""
    """Why it was ended: cpu, wall, memory, disk, processes, or asked; empty when it ended by itself."""
    overdue: bool = False
    """It seems to have slept too long, unless it was kept waiting: then the worker excuses some of the time."""
    waits: bool = False
    """The worker was asked whether it excuses some, and has not answered."""
    excused: float = 0.0
    """Wall seconds in which its judge or its worker was at work, or waited for a CPU."""
    crowded: bool = False
    status: int | None = None
    peak_kb: int = 0
    cpu: float = 0.0
    """CPU seconds by the last look: a process whose parent ignores its end leaves no trace in what is reaped."""
    seen: dict[str, int] = field(default_factory=dict)
    """CPU ticks of every process of the program, by the last look at it."""
    reaped_before: float = field(default_factory=lambda: _reaped_cpu())

    def first_pause(self) -> float:
        """Seconds until the first look."""
        return min(self.order.cpu_seconds / _CPUS, self.order.wall_seconds, _LONGEST_LOOK / 2)

    def look(self) -> float:
        """Compare what the program has used with its limits; seconds until the next look."""
        order, wall = self.order, time.monotonic() - self.started
        cpu, threads, memory_mb = self._usage()
        cpu = max(cpu, _cpu_clock(self.child)) + self._reaped()
        self.cpu = cpu = max(cpu, sum(self.seen.values()) / _TICKS)
        self.crowded = self.crowded or threads >= order.processes
        rest = order.wall_seconds - (wall - _queued(self.child) - self.excused)
        if cpu > order.cpu_seconds:
            self.reason = "cpu"
        elif threads > order.processes:
            self.reason = "processes"
        elif wall > order.wall_seconds * MOST_WALL or (rest < 0 and not self.asks):
            self.reason = "wall"
        elif memory_mb > order.memory_mb:
            self.reason = "memory"
        elif self.alone and self._disk_mb() > order.disk_mb:
            self.reason = "disk"
        self.overdue = rest < 0
        return max(min((order.cpu_seconds - cpu) / _CPUS, rest, _LONGEST_LOOK), _SHORTEST_LOOK)

    def _reaped(self) -> float:
        return _reaped_cpu() - self.reaped_before

    def _disk_mb(self) -> float:
        """What the program holds in this process's folder: without namespaces no mount of its own bounds that."""
        return held_mb(".", SCRATCH_INODES) + unlinked_mb(self.child, ".", self.order.disk_mb)

    def _usage(self) -> tuple[float, int, float]:
        """CPU seconds, threads and memory (MiB) of all live processes of the program."""
        ticks, threads, memory_kb = 0, 0, 0
        own = os.getpid()
        for name in _children(own) if self.alone else os.listdir("/proc"):
            if not name.isdigit() or int(name) in (own, self.first):
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # As bytes: a process names itself as it likes.
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                ticks += sum(int(f) for f in fields[11:15])
                self.seen[f"{name} {int(fields[19])}"] = int(fields[11]) + int(fields[12])
                threads += int(fields[17])
                if self.counts_memory:
                    memory_kb += _memory_kb(name)
        return ticks / _TICKS, threads, memory_kb / 1024

    def report(self) -> dict[str, object]:
        """What the worker is told when nothing of the program is left."""
        return {
            "serial": self.order.serial,
            "status": self.status,
            "reason": self.reason,
            "crowded": self.crowded,
            "cpu": max(self.cpu, self._reaped()),
            "wall": time.monotonic() - self.started,
            "peak_kb": self.peak_kb,
        }


def _reaped_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _cpu_clock(pid: int) -> float:
    """CPU seconds of a child that may hide its /proc entry: the kernel's clock id of another process."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _queued(pid: int) -> float:
    """Seconds a process was ready to run and waited for a CPU: on a busy machine it is not the one that dawdles."""
    try:
        return int(Path("/proc", str(pid), "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Stopwatch:
    """Seconds a process has been at work or has waited for a CPU; 0 where the kernel does not tell."""

    def __init__(self, pid: int) -> None:
        self._file: FileIO | None = None
        with contextlib.suppress(OSError):
            self._file = FileIO(f"/proc/{pid}/schedstat")

    def read(self) -> float:
        """So far."""
        if self._file is None:
            return 0.0
        try:
            ran, waited = os.pread(self._file.fileno(), 64, 0).split()[:2]
            return (int(ran) + int(waited)) / 1e9
        except (OSError, ValueError):
            return 0.0

    def close(self) -> None:
        """Let go of the process; what is read after this is 0."""
        if self._file:
            self._file.close()


def heir_of(pid: int, generations: int) -> int:
    """The first child of the first child ... of a process, so many generations down; 0 where there is none yet."""
    with contextlib.suppress(OSError, IndexError):
        for _ in range(generations):
            pid = int(_children(pid)[0])
        return pid
    return 0


def _memory_kb(name: str) -> int:
    """Anonymous and shared memory of a process, each page divided among those that have it (files are not counted)."""
    found = 0
    for line in Path("/proc", name, "smaps_rollup").read_bytes().splitlines():
        if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
            found += int(line.split()[1])
    return found
