"""One program in its container, seen from outside: what it says is carried to the worker, and its time is kept too.

The container's first process watches the program closely; this one sees to it that both come to an end.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from .. import codec, wire
from ..streams import as_file
from ..verdict import MOST_WALL
from .container import Container, ContainerError

_GRACE_SECONDS = 5.0
"""How much later than the container's first process this one ends a program."""
_ASKED_SECONDS = 2.0
"""Time for a program that was asked to end, to its last report."""
_DRAIN_SECONDS = 5.0
_ROOM = 1 << 20
"""Bytes kept for whoever does not take them; then the other side has to wait."""
_BLANK = {"crowded": False, "cpu": 0.0, "peak_kb": 0, "status": int(signal.SIGKILL)}


class Trial:
    """Descriptors `fds` are the program's 0 to 4, as a zygote gets them; they are this object's to close."""

    def __init__(self, control: socket.socket, order: dict, fds: list[int]) -> None:
        self.control, self.order = control, order
        self.stdin, self.out, self.err, self.channel, self.job = fds
        self.orphaned = False
        """The worker has gone away."""
        self.report: dict = {}
        self.asked = False
        self.reason = ""
        self.trouble = ""
        self.files: list[tuple[str, bytes]] = []
        self.door = -1
        self.inward, self.to_channel = bytearray(), bytearray()
        self.sinks = {self.out: bytearray(), self.err: bytearray()}
        self.sources: dict[int, int] = {}
        """A stream of the container, and where it goes."""
        self.started = time.monotonic()

    def run(self, container: Container) -> None:
        """To the program's end, whichever way that comes; nothing of it runs when this returns."""
        try:
            container.wait_until_warm(self.control.fileno())
            container.limit(self.order["memory_mb"], self.order["processes"])
        except (OSError, ContainerError) as error:
            self.trouble = str(error)
            container.kill()
            return
        self._connect(container)
        while not self._over() and time.monotonic() < self.deadline:
            self._carry(self._over, min(self.deadline, time.monotonic() + 1.0))
        if not self._over():
            self.reason = "asked" if self.asked else "wall"
        if self.report:
            container.stop()
        else:
            container.kill()
        if self.orphaned:
            return
        self._carry(self._delivered, time.monotonic() + _DRAIN_SECONDS)
        self._blame(container)

    def _connect(self, container: Container) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + self.order["wall_seconds"] * MOST_WALL + _GRACE_SECONDS
        self.door, self.inbox = container.door.fileno(), container.inbox
        self.sources = {container.out: self.out, container.err: self.err}
        order = {"order": self.order, "stdin": _read(self.stdin), "job": _read(self.job)}
        self.inward += wire.pack(b"O", marshal.dumps(order))
        for fd in (self.door, self.channel, *self.sources, *self.sinks):
            os.set_blocking(fd, False)

    def _over(self) -> bool:
        return bool(self.report or self.reason or self.orphaned or self.door < 0)

    def _delivered(self) -> bool:
        return self.orphaned or not (self.sources or self.to_channel or any(self.sinks.values()))

    def _carry(self, done: Callable[[], bool], deadline: float) -> None:
        while not done() and (rest := deadline - time.monotonic()) > 0:
            poll = select.poll()
            for fd, wanted in self._wanted().items():
                poll.register(fd, wanted)
            for fd, event in poll.poll(min(rest, 1.0) * 1000):
                self._serve(fd, event)

    def _wanted(self) -> dict[int, int]:
        """Nothing is read that could not be passed on."""
        wanted = {self.control.fileno(): select.POLLIN}
        wanted |= {fd: select.POLLOUT for fd, data in self.sinks.items() if data}
        wanted |= {fd: select.POLLIN for fd, sink in self.sources.items() if len(self.sinks[sink]) < _ROOM}
        for fd, kept, unsent in (
            (self.channel, self.inward, self.to_channel),
            (self.door, self.to_channel, self.inward),
        ):
            if fd >= 0:
                wanted[fd] = (select.POLLIN if len(kept) < _ROOM else 0) | (select.POLLOUT if unsent else 0)
        return wanted

    def _serve(self, fd: int, event: int) -> None:
        if fd == self.control.fileno():
            self._read_control()
        elif fd in self.sinks:
            _write(fd, self.sinks[fd])
        elif fd in self.sources:
            self._read_stream(fd)
        elif fd == self.channel:
            self._serve_channel(event)
        elif fd == self.door:
            self._serve_door(event)

    def _read_control(self) -> None:
        data = self.control.recv(1 << 16)
        self.orphaned = not data
        if data and json.loads(data).get("end") == self.order["serial"]:
            self.asked = True
            self.inward += wire.pack(b"X")
            self.deadline = min(self.deadline, time.monotonic() + _ASKED_SECONDS)

    def _read_stream(self, fd: int) -> None:
        data = _take(fd)
        if data:
            self.sinks[self.sources[fd]] += data
        elif data is not None:
            del self.sources[fd]

    def _serve_channel(self, event: int) -> None:
        if event & select.POLLOUT:
            _write(self.channel, self.to_channel)
        if event & ~select.POLLOUT:
            data = _take(self.channel)
            if data is None:
                return
            self.inward += wire.pack(b"C" if data else b"E", data)
            if not data:
                self._hang_up()

    def _hang_up(self) -> None:
        os.close(self.channel)
        self.channel = -1
        self.to_channel.clear()

    def _serve_door(self, event: int) -> None:
        if event & select.POLLOUT:
            _write(self.door, self.inward)
        if not event & ~select.POLLOUT:
            return
        data = _take(self.door)
        if data is None:
            return
        try:
            for frame in self.inbox.feed(data):
                self._hear(frame)
        except (codec.Malformed, ValueError, KeyError, TypeError) as error:
            self.trouble = f"the container's first process broke the protocol: {error}"
            data = b""
        if not data:
            self.door = -1

    def _hear(self, frame: wire.Frame) -> None:
        if frame.kind == b"C" and self.channel >= 0:
            self.to_channel += frame.body
        elif frame.kind == b"E" and self.channel >= 0:
            self._carry(lambda: self.channel < 0 or not self.to_channel, time.monotonic() + _DRAIN_SECONDS)
            if self.channel >= 0:
                self._hang_up()
        elif frame.kind == b"F":
            name, data = marshal.loads(frame.body)
            if name in self.order["collect"]:
                self.files.append((name, data))
        elif frame.kind == b"R":
            self.report = _checked(json.loads(frame.body))

    def _blame(self, container: Container) -> None:
        """What the kernel did to the container; and where its first process could not say why it ended, why."""
        events = container.group.events() if container.group else None
        if events and events.oom_kills:
            self.reason = "memory"
        elif events and events.refused_forks and not self.report:
            self.reason = "processes"
        elif not self.report and not self.reason:
            self.trouble = self.trouble or container.last_words()

    def outcome(self) -> tuple[dict, list[int]]:
        """The report a zygote would give, and descriptors of what was collected, to be closed by the caller."""
        wall = time.monotonic() - self.started
        report = {**_BLANK, "wall": wall, "trouble": self.trouble, **self.report}
        report["reason"] = self.reason or report.get("reason", "")
        report |= {
            "serial": self.order["serial"],
            "clean": True,
            "collected": [name for name, _ in self.files],
        }
        return report, [as_file(data) for _, data in self.files]

    def close(self) -> None:
        """Close the program's descriptors; those who wait at the other ends hear that it is gone."""
        for fd in (self.stdin, self.out, self.err, self.channel, self.job):
            if fd >= 0:
                os.close(fd)


def _checked(report: dict) -> dict:
    """What is believed of a report: its fields, of their types."""
    kinds = {
        "status": int,
        "reason": str,
        "crowded": bool,
        "cpu": float,
        "wall": float,
        "peak_kb": int,
        "trouble": str,
    }
    return {name: kind(report[name]) for name, kind in kinds.items()}


def _take(fd: int) -> bytes | None:
    """What there is to read; empty at the end, None where there is nothing yet."""
    try:
        return os.read(fd, wire.READ)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, data: bytearray) -> None:
    """Write what is taken now; what nobody will ever read is dropped."""
    try:
        del data[: os.write(fd, data)]
    except BlockingIOError:
        return
    except OSError:
        data.clear()


def _read(fd: int) -> bytes:
    """All that a descriptor of a file holds."""
    with contextlib.suppress(OSError), open(os.dup(fd), "rb") as file:
        return file.read()
    return b""
