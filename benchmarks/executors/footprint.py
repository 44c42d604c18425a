"""What a pool holds of the machine while it rests: memory, descriptors, processes, mounts, groups, files, IPC."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

_MIB = 1 << 20
_GROUPS = Path("/sys/fs/cgroup")
_PREFIX = "temper-sandbox"
_PROGRAMS_FILES = "temper-soak-"


@dataclass(frozen=True, slots=True)
class Footprint:
    """One look at the pool's family. Memory is MiB resident, pages shared with others included."""

    supervisor_mib: float
    worker_mib: float
    """The largest worker."""
    zygote_mib: float
    """The largest of the jails' own interpreters, judges included."""
    supervisor_descriptors: int
    worker_descriptors: int
    """Of all workers."""
    zygote_descriptors: int
    """Of all the jails' own interpreters; 0 where the kernel shows them to root alone."""
    supervisor_threads: int
    workers: int
    """All that were ever seen: one more is one that died and was replaced."""
    processes: int
    """All descendants, the dead that nobody has waited for included."""
    mounts: int
    """Of the supervisor's namespace."""
    groups: int
    """Control groups made by any of those workers."""
    folders: int
    """Temporary folders made by any of those workers."""
    files: int
    """What programs tried to leave in /tmp and /dev/shm."""
    ipc_objects: int
    """System V queues, semaphores and memory, and POSIX queues where they are mounted."""


@dataclass(frozen=True, slots=True)
class Row:
    """How to speak of one figure, and how much it may grow from the first look to the last."""

    about: str
    tolerance: float


ROWS = {
    "supervisor_mib": Row("memory of the supervisor, MiB", 24.0),
    "worker_mib": Row("memory of the largest worker, MiB", 8.0),
    "zygote_mib": Row("memory of the largest zygote, MiB", 8.0),
    "supervisor_descriptors": Row("descriptors of the supervisor", 0),
    "worker_descriptors": Row("descriptors of the workers", 0),
    "zygote_descriptors": Row("descriptors of the zygotes", 0),
    "supervisor_threads": Row("threads of the supervisor", 0),
    "workers": Row("workers started", 0),
    "processes": Row("processes of the family", 0),
    "mounts": Row(
        "mounts", 2
    ),  # a machine may mount something meanwhile; a jail that leaks does it by the hundred
    "groups": Row("control groups", 0),
    "folders": Row("temporary folders", 0),
    "files": Row("files of programs on the host", 0),
    "ipc_objects": Row("System V objects and message queues", 0),
}
assert list(ROWS) == [field.name for field in fields(Footprint)]


class Lookout:
    """Looks at this process and all it started. Other pools on the machine are none of its business."""

    def __init__(self) -> None:
        self.workers: set[int] = set()
        """Process numbers of all that were ever seen."""

    def look(self) -> Footprint:
        """Only sensible while no program runs."""
        me = psutil.Process()
        family = me.children(recursive=True)
        workers = [member for member in family if _module(member) == "worker"]
        zygotes = [member for member in family if _module(member) == "zygote"]
        self.workers |= {member.pid for member in workers}
        return Footprint(
            supervisor_mib=_resident(me),
            worker_mib=max(map(_resident, workers), default=0.0),
            zygote_mib=max(map(_resident, zygotes), default=0.0),
            supervisor_descriptors=_descriptors(me),
            worker_descriptors=sum(map(_descriptors, workers)),
            zygote_descriptors=sum(map(_descriptors, zygotes)),
            supervisor_threads=threading.active_count(),
            workers=len(self.workers),
            processes=len(family),
            mounts=len(Path("/proc/mounts").read_text().splitlines()),
            groups=sum(map(self._is_ours, _groups())),
            folders=sum(map(self._is_ours, _temporary().glob(f"{_PREFIX}-*"))),
            files=sum(1 for place in {_temporary(), Path("/tmp"), Path("/dev/shm")} for _ in _left(place)),
            ipc_objects=_ipc_objects(),
        )

    def _is_ours(self, folder: Path) -> bool:
        """By the maker's number in its name."""
        return int(folder.name.split("-")[2]) in self.workers


def _module(member: psutil.Process) -> str:
    """Which of the sandbox's modules a process was started with."""
    with contextlib.suppress(psutil.Error):
        words: list[str] = member.cmdline()
        return words[-2] if len(words) > 2 else ""
    return ""


def _resident(member: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(member.memory_info().rss) / _MIB
    return 0.0


def _descriptors(member: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(member.num_fds())
    return 0


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _left(place: Path) -> Iterator[Path]:
    return place.glob(f"{_PROGRAMS_FILES}*")


def _groups() -> Iterator[Path]:
    for folder, below, _ in os.walk(_GROUPS):
        for name in below:
            if name.startswith(f"{_PREFIX}-"):
                yield Path(folder, name)


def _ipc_objects() -> int:
    found = 0
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            found += len(Path("/proc/sysvipc", kind).read_text().splitlines()) - 1
    with contextlib.suppress(OSError):
        found += len(os.listdir("/dev/mqueue"))
    return found
