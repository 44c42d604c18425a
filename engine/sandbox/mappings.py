"""Fewer and larger memory mappings: a fork copies them one by one, and a shared library has five where two would do.

A library's read-only data joins its code when it may be executed too, and its relocated data joins its data when it
may be written again. Both protect against a bug in the library; whoever runs Python in this process needs no such bug.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from . import kernel

_READ, _WRITE, _EXECUTE = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Mapping:
    """A line of /proc/self/maps."""

    start: int
    end: int
    rights: str
    file: str
    """Empty for memory of no file."""


def join() -> None:
    """Change the protection of library mappings so that the kernel makes neighbours one."""
    maps = read()
    for before, after in zip(maps, maps[1:], strict=False):
        if not before.file.startswith("/") or before.file != after.file or before.end != after.start:
            continue
        pair = before.rights, after.rights
        if pair == ("r--p", "r-xp"):
            _protect(before, _READ | _EXECUTE)
        elif pair == ("r-xp", "r--p"):
            _protect(after, _READ | _EXECUTE)
        elif pair == ("r--p", "rw-p"):
            _protect(before, _READ | _WRITE)


def _protect(mapping: Mapping, rights: int) -> None:
    with contextlib.suppress(OSError):  # a kernel that minds keeps its mappings, and forks take longer
        kernel.protect(mapping.start, mapping.end - mapping.start, rights)


def read() -> list[Mapping]:
    """This process's mappings, in the order of their addresses."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            place, rights, _, _, _, *file = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in place.split("-"))
            found.append(Mapping(start, end, rights, file[0].strip() if file else ""))
    return found
