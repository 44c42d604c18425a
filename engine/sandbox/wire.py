"""Framed messages between the sandbox's processes, read so that a stranger on the other end can do no harm."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from .codec import MAX_BYTES, Malformed

_header = struct.Struct(">Ic")
_number = struct.Struct(">Q")
MAX_FRAME = MAX_BYTES + 4096
READ = 1 << 16
"""Read at a time: a larger buffer would be mapped and unmapped for each read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: a kind of one byte and its body."""

    kind: bytes
    body: bytes


def pack(kind: bytes, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _header.pack(len(body), kind) + body


def numbered(number: int, body: bytes = b"") -> bytes:
    """A body with the number of the program it is about."""
    return _number.pack(number) + body


def read_number(body: bytes) -> tuple[int, bytes]:
    """What `numbered` put together."""
    return _number.unpack_from(body)[0], body[_number.size :]


def send(fd: int, kind: bytes, body: bytes = b"") -> None:
    """Write one frame, blocking until it is all out."""
    data = memoryview(pack(kind, body))
    while data:
        data = data[os.write(fd, data) :]


@dataclass(slots=True)
class Inbox:
    """Frames gathered from a descriptor, however they were cut on the way."""

    limit: int = MAX_FRAME
    buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`. Raises Malformed for a frame over the limit."""
        buffer = self.buffer
        buffer += data
        frames, at, have = [], 0, len(buffer)
        while have - at >= _header.size:
            size, kind = _header.unpack_from(buffer, at)
            if size > self.limit:
                raise Malformed(f"a frame of {size} bytes is over the limit of {self.limit}")
            end = at + _header.size + size
            if end > have:
                break
            frames.append(Frame(kind, bytes(buffer[at + _header.size : end])))
            at = end
        del buffer[:at]
        return frames

    def wait(self, fd: int) -> Frame | None:
        """The next frame, blocking; None at the end of the stream. Raises Malformed for a frame over the limit."""
        while (frame := self._take()) is None:
            try:
                data = os.read(fd, READ)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.buffer += data
        return frame

    def take(self, fd: int) -> Frame | None:
        """As `wait`, but reads not one byte beyond the frame, so that what follows stays in the kernel."""
        while (frame := self._take()) is None:
            have = len(self.buffer)
            size = _header.unpack_from(self.buffer)[0] if have >= _header.size else 0
            if size > self.limit:
                raise Malformed(f"a frame of {size} bytes is over the limit of {self.limit}")
            data = os.read(fd, _header.size + size - have)
            if not data:
                return None
            self.buffer += data
        return frame

    def _take(self) -> Frame | None:
        if len(self.buffer) < _header.size:
            return None
        size, kind = _header.unpack_from(self.buffer)
        if size > self.limit:
            raise Malformed(f"a frame of {size} bytes is over the limit of {self.limit}")
        end = _header.size + size
        if len(self.buffer) < end:
            return None
        frame = Frame(kind, bytes(self.buffer[_header.size : end]))
        del self.buffer[:end]
        return frame
