"""Pages every program writes to at once: copied by the fork itself, not by a fault each when the program comes to them.

The kernel copies a page at fork, instead of sharing it until the first write, when a device may be writing to it. An
io_uring's registered buffers count as such. A fault costs several times the copy, and a program takes hundreds. Where
io_uring is not to be had, programs run the same and a little slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

from . import kernel

_SETUP, _REGISTER, _BUFFERS = 425, 427, 0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
_MOST_RANGES = 1000


def copy_eagerly(sample: Callable[[], object]) -> int:
    """Find the pages a fork writes to while it does `sample`, and have every later fork be given its own of them.

    Returns:
        How many pages; 0 where the kernel does not grant it.
    """
    ranges: list[list[int]] = []
    for page in sorted(_written_by(sample) & _present()):
        if ranges and ranges[-1][1] == page:
            ranges[-1][1] = page + _PAGE
        else:
            ranges.append([page, page + _PAGE])
    del ranges[_MOST_RANGES:]
    with contextlib.suppress(OSError):
        parameters = (ctypes.c_char * 120)()
        ring = kernel.syscall(_SETUP, 1, parameters, what="io_uring")
        buffers = b"".join(struct.pack("=QQ", start, end - start) for start, end in ranges)
        kernel.syscall(_REGISTER, ring, _BUFFERS, ctypes.c_char_p(buffers), len(ranges), what="pin pages")
        return sum(end - start for start, end in ranges) // _PAGE
    return 0


def _written_by(sample: Callable[[], object]) -> set[int]:
    """The private pages a fork has for itself alone after `sample`."""
    ours, theirs = os.pipe()
    child = kernel.fork()
    if child == 0:
        try:
            sample()
            pages = _pages(_EXCLUSIVE)
            with open(theirs, "wb") as file:
                file.write(struct.pack(f"={len(pages)}Q", *pages))
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return set(struct.unpack(f"={len(data) // 8}Q", data))


def _present() -> set[int]:
    return set(_pages(_PRESENT))


def _pages(bit: int) -> list[int]:
    """Addresses of this process's writable private pages that have a bit set in the kernel's page map."""
    found = []
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        for start, end in _writable():
            data = os.pread(pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8)
            entries = struct.unpack(f"={len(data) // 8}Q", data)
            found += [start + i * _PAGE for i, e in enumerate(entries) if e & _PRESENT and e & bit]
    finally:
        os.close(pagemap)
    return found


def _writable() -> list[tuple[int, int]]:
    ranges = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            place, rights = line.split()[:2]
            if rights.startswith("rw") and rights.endswith("p"):
                start, end = (int(part, 16) for part in place.split("-"))
                ranges.append((start, end))
    return ranges
