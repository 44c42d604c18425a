"""What goes into a program and comes out of it: descriptors of data in memory, and the kept part of its output."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(slots=True)
class Output:
    """One stream's kept part: the first bytes of stdout, the last of stderr (where the traceback is)."""

    room: int
    keep_last: bool
    kept: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        if self.keep_last:
            self.kept += data
            del self.kept[: max(0, len(self.kept) - self.room)]
        else:
            self.kept += data[: max(0, self.room - len(self.kept))]

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


def as_file(data: bytes) -> int:
    """A descriptor of a file in memory that holds `data`, at its start."""
    file = os.memfd_create("data", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    return file
