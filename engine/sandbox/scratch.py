"""The scratch folder a program may write to: proven untouched, or wiped, before the next program sees it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BLOCK, _MIB = 512, 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """What an empty scratch folder looks like; equal marks mean nothing was left in it."""

    mode: int
    owner: int
    changed_ns: int
    free_inodes: int


_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS


class Scratch:
    """One scratch folder, empty when made."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._signs = _signs(path)
        status = os.stat(path)
        self._times = status.st_atime_ns, status.st_mtime_ns
        self._mark = self._look()

    def _look(self) -> Mark:
        status, system = os.stat(self.path), os.statvfs(self.path)
        return Mark(status.st_mode, status.st_uid, status.st_ctime_ns, system.f_ffree)

    def clean(self) -> bool:
        """Make it as new; False when that cannot be done and the jail must be built again."""
        now = self._look()
        if now == self._mark:
            return True
        if (now.mode, now.owner) != (self._mark.mode, self._mark.owner):
            return False
        try:
            empty(self.path)
            if _signs(self.path) != self._signs:
                return False
            with contextlib.suppress(PermissionError):  # then neither could the program set them
                os.utime(self.path, ns=self._times)
        except OSError:
            return False
        self._mark = self._look()
        return True


def _signs(path: str) -> tuple[list[str], int]:
    """What its owner may write on a folder besides its mode: names of attributes and access lists, and flags."""
    folder = os.open(path, _FOLDER)
    try:
        attributes: list[str] = []
        with contextlib.suppress(OSError):  # a file system without
            attributes = os.listxattr(folder)
        flags = bytearray(8)
        with contextlib.suppress(OSError):
            fcntl.ioctl(folder, _GET_FLAGS, flags)
        return attributes, int.from_bytes(flags, "little")
    finally:
        os.close(folder)


@contextlib.contextmanager
def collected(path: str, names: list[str]) -> Iterator[dict[str, int]]:
    """Descriptors of those of the named files that are there and plain, without following any link on the way."""
    files: dict[str, int] = {}
    try:
        for name in names:
            with contextlib.suppress(OSError):
                files[name] = _open_plain(path, name)
        yield files
    finally:
        for fd in files.values():
            os.close(fd)


def _open_plain(path: str, name: str) -> int:
    *folders, last = PurePosixPath(name).parts
    place = os.open(path, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        # not blocking: a named pipe would wait for its other end
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(1, "not a plain file")
    return file


def held_mb(path: str, most_entries: int) -> float:
    """What a folder holds; infinite for more entries than allowed, or deeper ones than can be named.

    For scratch folders without a file system of their own to bound them.
    """
    todo, entries, blocks = [path], 0, 0
    while todo:
        try:
            with os.scandir(todo.pop()) as found:
                for entry in found:
                    entries += 1
                    with contextlib.suppress(FileNotFoundError):  # gone since: the others are still there
                        blocks += entry.stat(follow_symlinks=False).st_blocks
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(entry.path)
        except OSError as error:  # gone meanwhile, or closed even to its owner
            if error.errno == errno.ENAMETOOLONG:
                return math.inf
        if entries > most_entries:
            return math.inf
    return blocks * _BLOCK / _MIB


def unlinked_mb(pid: int, path: str, largest_mb: float) -> float:
    """What a process still holds of files that are in no folder any more: open ones on the file system of `path`, and
    mapped ones of that folder. What is mapped and not open does not tell its size and counts as `largest_mb`."""
    device, blocks, inodes = os.stat(path).st_dev, 0, set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as files:
        for file in files:
            with contextlib.suppress(OSError):
                status = os.stat(file.path)
                if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == device:
                    blocks += status.st_blocks
                    inodes.add(status.st_ino)
    return blocks * _BLOCK / _MIB + len(_mapped(pid, path) - inodes) * largest_mb


def _mapped(pid: int, path: str) -> set[int]:
    """Inodes of files of a folder that a process has mapped and that have no name any more."""
    inodes, start = set(), os.fsencode(os.path.realpath(path)) + b"/"
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as lines:
        for line in lines:
            words = line.rstrip(b"\n").split(maxsplit=5)
            if len(words) == 6 and words[5].startswith(start) and words[5].endswith(b" (deleted)"):
                inodes.add(int(words[4]))
    return inodes


def empty(path: str) -> None:
    """Remove all in a folder, following no link, however deep a stranger nested it. Raises OSError if it resists.

    Folders are emptied upwards: what a folder holds is moved next to it first, so no path grows and no call recurses.
    """
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        moved = 0
        while names := _names(top):
            for name in names:
                if not _is_folder(name, top):
                    os.unlink(name, dir_fd=top)
                    continue
                moved = _empty_upwards(name, top, moved)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _empty_upwards(name: str, top: int, moved: int) -> int:
    _open_up(name, top)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for inner in _names(folder):
            if not _is_folder(inner, folder):
                os.unlink(inner, dir_fd=folder)
                continue
            _open_up(inner, folder)
            moved += 1
            os.rename(inner, f".{moved}.{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    return moved


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _is_folder(name: str, folder: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _open_up(name: str, folder: int) -> None:
    """Give back the rights a program may have taken from its own folder."""
    with contextlib.suppress(OSError):
        os.chmod(name, 0o700, dir_fd=folder)
