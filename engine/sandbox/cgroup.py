"""Control groups of one jail: memory and process count bounded by the kernel, version 2 where it can, else 1."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

_serial = itertools.count()
_PREFIX = "temper-sandbox"
_STALE_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Events:
    """How often the kernel had to step in since the group was made."""

    oom_kills: int
    refused_forks: int


class Group:
    """One jail's groups. Made by `create`; `close` when its last process is gone."""

    def __init__(self, memory: Path, pids: Path, version: int) -> None:
        self.memory, self.pids, self.version = memory, pids, version
        name = "memory.events" if version == 2 else "memory.oom_control"
        # kept open: they are read after every program
        self._oom = os.open(memory / name, os.O_RDONLY | os.O_CLOEXEC)
        self._forks = os.open(pids / "pids.events", os.O_RDONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        for folder in {self.memory, self.pids}:
            (folder / "cgroup.procs").write_text(str(pid))

    def limit(self, memory_mb: int, processes: int) -> None:
        size = str(memory_mb << 20)
        if self.version == 2:
            self._write(self.memory / "memory.max", size)
            self._write(self.memory / "memory.swap.max", "0", optional=True)
        else:
            # the limit on memory with swap may never be below the one on memory: widen it before, narrow it after
            self._write(self.memory / "memory.memsw.limit_in_bytes", "-1", optional=True)
            self._write(self.memory / "memory.limit_in_bytes", size)
            self._write(self.memory / "memory.memsw.limit_in_bytes", size, optional=True)
        self._write(self.pids / "pids.max", str(processes))

    @staticmethod
    def _write(path: Path, value: str, *, optional: bool = False) -> None:
        try:
            path.write_text(value)
        except OSError:
            if not optional:
                raise

    def events(self) -> Events:
        return Events(_field(self._oom, b"oom_kill"), _field(self._forks, b"max"))

    def close(self) -> None:
        os.close(self._oom)
        os.close(self._forks)
        for folder in {self.memory, self.pids}:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove one group; processes just killed may take a moment to leave it."""
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def remove_of(worker: int) -> None:
    """Remove the groups made by a worker of this pool's that is dead now."""
    for folder in groups_of(worker):
        _remove(folder)


def groups_of(worker: int) -> set[Path]:
    """The folders of the groups a worker has made and not removed."""
    mounts = {**_mounts("cgroup"), **_mounts("cgroup2")}
    paths = _own_paths()
    found: set[Path] = set()
    for controller in ("memory", "pids", ""):
        if controller not in mounts:
            continue
        own = mounts[controller] / paths.get(controller, "/").lstrip("/")
        for parent in {own, own.parent, mounts[controller]}:
            found |= set(parent.glob(f"{_PREFIX}-{worker}-*"))
    return found


def _field(file: int, name: bytes) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in os.pread(file, 4096, 0).splitlines():
            key, _, value = line.partition(b" ")
            if key == name:
                return int(value)
    return 0


def create() -> Group:
    """New groups below this process's own. Raises OSError when none can be made."""
    problems = []
    for attempt in (_create_v2, _create_v1):
        try:
            return attempt()
        except OSError as error:
            problems.append(f"{attempt.__name__[-2:]}: {error.strerror or error}")
    raise OSError(1, f"no writable cgroup ({'; '.join(problems)})")


def _create_v2() -> Group:
    mounts = _mounts("cgroup2")
    if "" not in mounts:
        raise OSError(2, "not mounted")
    own = mounts[""] / _own_paths().get("", "/").lstrip("/")
    last: OSError = OSError(1, "memory and pids are not delegated")
    for parent in dict.fromkeys((own, own.parent, mounts[""])):
        try:
            enabled = (parent / "cgroup.subtree_control").read_text().split()
            if not {"memory", "pids"} <= set(enabled):
                (parent / "cgroup.subtree_control").write_text("+memory +pids")
            folder = _make(parent)
            return Group(folder, folder, 2)
        except OSError as error:
            last = error
    raise last


def _create_v1() -> Group:
    mounts, paths = _mounts("cgroup"), _own_paths()
    made: list[Path] = []
    try:
        for controller in ("memory", "pids"):
            if controller not in mounts:
                raise OSError(2, f"no {controller} controller")
            made.append(_make(mounts[controller] / paths.get(controller, "/").lstrip("/")))
    except OSError:
        for folder in made:
            folder.rmdir()
        raise
    return Group(made[0], made[1], 1)


def _make(parent: Path) -> Path:
    _sweep(parent)
    folder = parent / f"{_PREFIX}-{os.getpid()}-{next(_serial)}"
    folder.mkdir()
    return folder


def _sweep(parent: Path) -> None:
    """Remove groups whose maker was killed before it could; one with a process in it refuses to go."""
    for folder in parent.glob(f"{_PREFIX}-*"):
        maker = folder.name.split("-")[2]
        with contextlib.suppress(OSError):
            if (
                not Path("/proc", maker).exists()
                and time.time() - folder.stat().st_mtime > _STALE_AFTER_SECONDS
            ):
                folder.rmdir()


def _mounts(kind: str) -> dict[str, Path]:
    """Controller name -> mount point for version 1; "" -> mount point for version 2."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        name, _, options = tail.split(" ", 2)
        if name != kind:
            continue
        place = Path(fields.split()[4])
        for controller in [""] if kind == "cgroup2" else options.split(","):
            found[controller] = place
    return found


def _own_paths() -> dict[str, str]:
    """Controller name ("" for version 2) -> this process's group."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths
