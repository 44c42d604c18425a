"""Encoded rows kept on disk: found by their key, built by one process at a time, used by many, never trusted blindly.

An entry is a folder `KEY` of .npy files and a manifest, written under another name and renamed when it is whole.
Processes that build wait for each other by a lock of the kernel's, which a process that dies gives back.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.columns import mapped
from engine.data.sources import sha256

MANIFEST = "manifest.json"
_PARTIAL = ".partial"
_LOCK = ".lock"

Facts = Mapping[str, Any]
Build = Callable[[Path], Facts]
"""Writes .npy files into a folder, and gives the facts to keep beside them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept under a key: arrays mapped from disk, and facts. As long as it lives, its files stay.

    Attributes:
        built: whether this process built it just now.
    """

    folder: Path
    arrays: Mapping[str, np.ndarray]
    facts: Facts
    built: bool
    hold: Hold


class Hold:
    """A shared lock on an entry, which keeps others from removing it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


class Cache:
    """Entries below one folder.

    Args:
        limit_bytes: once entries take more, those used least recently are removed, but none that is in use.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def fetch(self, key: str, build: Build) -> Entry:
        """The entry of a key, built by `build` where there is none that is whole.

        Raises:
            OSError: the folder cannot be written to.
            Whatever `build` raises; there is no entry then.
        """
        entry = self._find(key)
        if entry:
            return entry
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock(key):
            entry = self._find(key)
            if entry:
                return entry
            self._build(key, build)
            entry = self._find(key, built=True)
        if entry is None:
            raise OSError(f"{self._folder / key} was removed as soon as it was there")
        self._make_room(key)
        return entry

    def note(self, entry: Entry, name: str, value: Facts) -> None:
        """Leave a further fact beside an entry; where that cannot be written, it is found out again another time."""
        try:
            _write_sealed(entry.folder / f"{name}.json", value)
        except OSError:
            pass

    def noted(self, entry: Entry, name: str) -> Facts | None:
        """A fact left beside an entry; None where there is none, or it is not as it was left."""
        return _sealed(entry.folder / f"{name}.json")

    def _find(self, key: str, *, built: bool = False) -> Entry | None:
        """The entry of a key, if every file is as it was published."""
        folder = self._folder / key
        try:
            descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
        except OSError:
            return None
        hold = Hold(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not _same(descriptor, folder / MANIFEST):
                return None
            manifest = _sealed(folder / MANIFEST)
            if manifest is None or not all(
                _whole(folder / name, record) for name, record in manifest["files"].items()
            ):
                return None
            arrays = {Path(name).stem: mapped(folder / name) for name in manifest["files"]}
        except (OSError, ValueError):
            return None
        # When it was used last; a folder of somebody else's can be read all the same.
        try:
            os.utime(folder / MANIFEST)
        except OSError:
            pass
        return Entry(folder, arrays, manifest["facts"], built, hold)

    def _build(self, key: str, build: Build) -> None:
        for left in self._folder.glob(f".{key}.*{_PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)
        partial = self._folder / f".{key}.{os.getpid()}{_PARTIAL}"
        partial.mkdir()
        try:
            facts = build(partial)
            files = {file.name: _settled(file) for file in sorted(partial.glob("*.npy"))}
            _write_sealed(partial / MANIFEST, {"files": files, "facts": facts})
            _sync(partial)
            if (self._folder / key).exists():
                os.rename(self._folder / key, self._folder / f".{key}.torn{_PARTIAL}")
            os.rename(partial, self._folder / key)
            _sync(self._folder)
        finally:
            for left in self._folder.glob(f".{key}.*{_PARTIAL}"):
                shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Alone with a key, among all processes that share the folder."""
        file = self._folder / f".{key}{_LOCK}"
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever had it removed its file: what is locked now may be one that nobody else will see.
            if _same(descriptor, file):
                break
            os.close(descriptor)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            os.close(descriptor)

    def _make_room(self, key: str) -> None:
        """Remove entries used least recently until all take no more than the limit, and what dead builders left."""
        for lock in self._folder.glob(f".*{_LOCK}"):
            self._clear(lock)
        used = []
        for manifest in self._folder.glob(f"*/{MANIFEST}"):
            try:
                size = sum(file.stat().st_size for file in manifest.parent.iterdir())
                used.append((manifest.stat().st_mtime, size, manifest.parent))
            except OSError:
                continue
        total = sum(size for _, size, _ in used)
        for _, size, folder in sorted(used):
            if total <= self._limit:
                return
            if folder.name != key and _removed(folder):
                total -= size

    def _clear(self, lock: Path) -> None:
        """Remove what a builder left that died: nobody holds its lock."""
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(descriptor, lock):
                for left in self._folder.glob(f"{lock.name.removesuffix(_LOCK)}.*{_PARTIAL}"):
                    shutil.rmtree(left, ignore_errors=True)
                lock.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def warn(folder: Path, error: OSError) -> None:
    """One line: the run goes on without what it cannot keep."""
    reason = error.strerror or error
    print(
        f"encoded rows are not kept in {folder} ({reason}); name another folder as `data.cache`",
        file=sys.stderr,
        flush=True,
    )


def _removed(folder: Path) -> bool:
    """Remove an entry, unless somebody uses it."""
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _settled(file: Path) -> dict[str, Any]:
    """Bring a file to the disk; its hash, and the stamp it has while nobody touches it."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"sha256": sha256(file), "stamp": _stamp(file)}


def _whole(file: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file is what was published: by its size, and by its hash where it was touched since."""
    now = _stamp(file)
    return now == record["stamp"] or (now[0] == record["stamp"][0] and sha256(file) == record["sha256"])


def _stamp(file: Path) -> list[int]:
    """Size, and when content and inode were changed last: what cannot stay the same while a file is edited."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _same(descriptor: int, file: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def _write_sealed(file: Path, value: Facts) -> None:
    body = json.dumps(value, sort_keys=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}{_PARTIAL}")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "value": value}))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def _sealed(file: Path) -> Facts | None:
    """The value of a file written so; None where it is missing or not as it was written."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        body = json.dumps(found["value"], sort_keys=True)
        return found["value"] if found["sha256"] == hashlib.sha256(body.encode()).hexdigest() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
