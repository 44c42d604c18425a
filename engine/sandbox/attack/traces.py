"""What hostile programs may have left on this machine: processes, files, IPC objects, groups, mounts, settings."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sysconfig
import tempfile
import time
from pathlib import Path

from .. import cgroup, keeper, kernel

MARK = "temper-attack"
"""In the name of all that programs of the catalogue make outside their folder, so that it can be told from others'."""
KEY = 4242
"""Of their System V objects."""

_SETTLE_SECONDS = 5.0
_PLACES = (
    *("/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/dev/mqueue", "/run", "/run/systemd", "/etc/cron.d"),
    *(
        "/etc/profile.d",
        "/etc/systemd/system",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/memory",
        "~",
        "~/.cache",
        ".",
    ),
)
_PR_SET_CHILD_SUBREAPER = 36
_LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)


class Traces:
    """Compares this machine with what it was like when this was made, before the pool was opened."""

    def __init__(self) -> None:
        # whatever is orphaned below comes to this process, and so cannot leave the family
        kernel.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._strangers = family()
        self._settings = _settings()
        self._workers: set[int] = set()
        self._quiet, self._groups = 0, 0
        libraries = sysconfig.get_paths()["stdlib"]
        places = {
            tempfile.gettempdir(),
            libraries,
            f"{libraries}/site-packages",
            f"{libraries}/__pycache__",
            *_PLACES,
        }
        self._places = sorted({os.path.realpath(os.path.expanduser(place)) for place in places})

    def settle(self) -> None:
        """From here on the pool at rest has this many processes and groups."""
        self._quiet = len(self._running())
        self._groups = len(self._own_groups())

    def found(self) -> list[str]:
        """What is there that should not be, in words."""
        left = [f"{path} was left" for path in self._marked_files()]
        left += [f"a System V object was left ({line})" for line in _objects()]
        if MARK in Path("/proc/self/mountinfo").read_text(errors="replace"):
            left.append("a mount was left")
        left += [f"{name} is {now}, was {self._settings[name]}" for name, now in _settings().items()
                 if now != self._settings[name]]  # fmt: skip
        survivors = self._survivors()
        if survivors:
            left.append(
                f"{len(survivors)} processes more than before: {'; '.join(map(_words, survivors))}"[:300]
            )
        groups = self._own_groups()
        inner = [path for group in groups for path in group.iterdir() if path.is_dir()]
        if len(groups) > self._groups or inner:
            left.append(f"groups were left: {', '.join(map(str, [*groups, *inner]))}"[:300])
        return left

    def after_close(self) -> list[str]:
        """What a closed pool has left behind."""
        self._quiet = self._groups = 0
        left = self.found()
        left += [f"{path} was left" for worker in self._workers for path in keeper.folders_of(worker)]
        return left

    def close(self) -> None:
        """Stop adopting orphans, and bury those that came."""
        kernel.prctl(_PR_SET_CHILD_SUBREAPER, 0)
        for pid in _children(os.getpid()) - self._strangers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _running(self) -> list[int]:
        running = [pid for pid in family() - self._strangers if _status(pid, "State")[:1] not in ("", "Z")]
        self._workers |= set(running) & _children(os.getpid())
        return running

    def _survivors(self) -> list[int]:
        """Processes beyond those of a pool at rest, once what was killed has had time to go; the newest first."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while len(running := self._running()) > self._quiet and time.monotonic() < deadline:
            time.sleep(0.01)
        return sorted(running, key=_started, reverse=True)[: max(0, len(running) - self._quiet)]

    def _own_groups(self) -> set[Path]:
        return {group for worker in self._workers for group in cgroup.groups_of(worker)}

    def _marked_files(self) -> list[str]:
        found = []
        for place in self._places:
            with contextlib.suppress(OSError):
                found += [f"{place}/{name}" for name in os.listdir(place) if MARK in name]
        return found


def family(pid: int | None = None) -> set[int]:
    """All processes that a process (this one by default) has started, and what they have started."""
    found: set[int] = set()
    todo = [os.getpid() if pid is None else pid]
    while todo:
        new = _children(todo.pop()) - found
        found |= new
        todo += new
    return found


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children |= set(map(int, file.read_text().split()))
    return children


def _status(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            key, _, value = line.partition(b":")
            if key == name.encode():
                return value.decode("utf-8", "replace").strip()
    return ""


def _started(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return 0


def _words(pid: int) -> str:
    return f"{_status(pid, 'Name')} ({pid}, {_status(pid, 'State')})"


def _objects() -> list[str]:
    lines = []
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            lines += Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    return [line.strip()[:60] for line in lines if line.split()[0] == str(KEY)]


def _settings() -> dict[str, object]:
    return {
        "the host name": socket.gethostname(),
        "this process's priority": os.getpriority(os.PRIO_PROCESS, 0),
        "this process's scheduler": os.sched_getscheduler(0),
        "this process's CPUs": sorted(os.sched_getaffinity(0)),
        "this process's limits": [resource.getrlimit(kind) for kind in _LIMITS],
        "this process's folder": os.getcwd(),
    }
