"""Pages every program writes to at once: copied by the fork itself, not by a fault each when the program comes to them.

The kernel copies a page at fork, instead of sharing it until the first write, when a device may be writing to it. An
io_uring's registered buffers count as such. A fault costs several times the copy, and a program takes hundreds. Where
io_uring is not to be had, programs run the same and a little slower.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable

from . import kernel, mappings

_SETUP, _REGISTER, _BUFFERS = 425, 427, 0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
_MOST_RANGES = 1000

Ranges = list[tuple[int, int]]
"""Addresses, each from its start to its end."""


def make_ring() -> int:
    """The descriptor that will hold pages; -1 where there is none to be had.

    Made before a process gives up its rights, since what is held by one without them counts as its locked memory.
    """
    try:
        return kernel.syscall(_SETUP, 1, (ctypes.c_char * 120)(), what="io_uring")
    except OSError:
        return -1


def copy_at_fork(ring: int, pages: Iterable[int]) -> int:
    """Have every later fork be given its own of these pages; how many, 0 where the kernel does not grant it."""
    ranges: list[list[int]] = []
    for page in sorted(pages):
        if ranges and ranges[-1][1] == page:
            ranges[-1][1] = page + _PAGE
        else:
            ranges.append([page, page + _PAGE])
    del ranges[_MOST_RANGES:]
    buffers = b"".join(struct.pack("=QQ", start, end - start) for start, end in ranges)
    try:
        kernel.syscall(_REGISTER, ring, _BUFFERS, ctypes.c_char_p(buffers), len(ranges), what="pin pages")
    except OSError:
        return 0
    return sum(end - start for start, end in ranges) // _PAGE


def written_by(sample: Callable[[int, int], tuple[int, int]]) -> set[int]:
    """The pages a fork writes to while it does `sample`.

    `sample` is given two descriptors to leave open; their numbers are its to change, and it returns the new ones.
    """
    ranges = _writable()
    ours, theirs = os.pipe()
    child = kernel.fork()
    if child == 0:
        try:
            pagemap, theirs = sample(os.open("/proc/self/pagemap", os.O_RDONLY), theirs)
            pages = _pages(pagemap, ranges, _EXCLUSIVE)
            with open(theirs, "wb") as file:
                file.write(struct.pack(f"={len(pages)}Q", *pages))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return set(struct.unpack(f"={len(data) // 8}Q", data))


def _pages(pagemap: int, ranges: Ranges, bit: int) -> list[int]:
    """Addresses of the pages that have a bit set in the kernel's page map."""
    found = []
    for start, end in ranges:
        data = os.pread(pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8)
        entries = struct.unpack(f"={len(data) // 8}Q", data)
        found += [start + i * _PAGE for i, e in enumerate(entries) if e & _PRESENT and e & bit]
    return found


def present() -> set[int]:
    """This process's writable private pages."""
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        return set(_pages(pagemap, _writable(), _PRESENT))
    finally:
        os.close(pagemap)


def _writable() -> Ranges:
    return [(m.start, m.end) for m in mappings.read() if m.rights == "rw-p"]
