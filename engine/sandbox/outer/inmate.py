"""The first process of an outer engine's container: it becomes one program, watches it, and tells how it ended.

All it says and hears goes through one stream, the door: an engine carries no descriptors across its boundary. It is
root inside, and the program is another user, so that it cannot be killed, traced or spoken for by the program.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import marshal
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from .. import kernel, scratch, seccomp, solution, wire
from ..jail import Shape
from ..streams import as_file
from ..watch import Order, Watch
from ..zygote import Zygote

_TRUSTED = 256 << 20
_ABOVE = 32
"""Descriptors are kept above those the program gets."""
_ROOM = 1 << 20
"""Bytes kept for a door that does not take them; then the program has to wait."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_KEPT_FILES = 64 << 20


def main(door: int) -> None:
    """Be told what to be, say when that is ready, run one program and leave; the container ends with this process."""
    door, out, err = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (door, door + 1, door + 2))
    inbox = wire.Inbox(_TRUSTED)
    first = inbox.wait(door)
    if first is None:
        return
    try:
        inmate = Inmate(door, Shape.read(first.body), (out, err))
        inmate.enter()
    except Exception as error:  # also what a preloaded module raises
        wire.send(door, b"X", (str(error) or type(error).__name__).encode())
        return
    wire.send(door, b"H")
    order = inbox.wait(door)
    if order is not None:
        inmate.live(order.body, inbox)


class Inmate(Zygote):
    """A zygote for one program only, which talks through a door instead of a control socket."""

    def __init__(self, door: int, shape: Shape, streams: tuple[int, int]) -> None:
        super().__init__(socket.socket(fileno=door), shape)
        self.door = door
        self.streams = streams
        self.unsent = bytearray()
        self.inward = bytearray()
        self.asked = False

    def enter(self) -> None:
        solution.warm_up(rehearsals=1)  # more pays only where there are many forks
        sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix)]
        sys.path += self.shape.shown
        for name in self.shape.preload:
            importlib.import_module(name)
        self.trouble, self.tell_trouble = os.pipe()
        os.set_blocking(self.trouble, False)
        self.base_kb = _kb_of(os.getpid(), 0)
        self.base_resident_kb = _kb_of(os.getpid(), 1)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.ended, self.tell_end = os.pipe()
        os.set_blocking(self.tell_end, False)
        signal.set_wakeup_fd(self.tell_end)
        # the engine's walls are its own; the sandbox's filter stays in force within them
        seccomp.install(seccomp.jail_filter(memory_files=True))
        gc.collect()
        gc.freeze()

    def live(self, order: bytes, inbox: wire.Inbox) -> None:
        """Run the program to its end and report."""
        told = marshal.loads(order)
        self.order = Order(**told["order"])
        near, far = socket.socketpair()
        self.channel = near.detach()
        null = os.open(os.devnull, os.O_RDONLY)
        stdin = as_file(told["stdin"]) if told["stdin"] else null
        given = [stdin, *self.streams, far.fileno(), as_file(told["job"])]
        fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in given]
        child = kernel.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._become(self.order, fds)
        watch = Watch(self.order, child, 0, alone=False, counts_memory=False)
        far.close()
        for fd in (*fds, *given[3:], *self.streams):
            with contextlib.suppress(OSError):
                os.close(fd)
        for fd in (self.channel, self.door):
            os.set_blocking(fd, False)
        self.inbox = inbox
        self._follow(watch)
        self._end_all(watch)
        self._tell(watch)

    def _follow(self, watch: Watch) -> None:
        """Carry what the program and the outside say to each other, until it ends or is over a limit."""
        poll = select.poll()
        poll.register(self.ended, select.POLLIN)
        pause = watch.first_pause()
        due = watch.started + pause
        while not watch.reason:
            self._register(poll)
            ready = dict(poll.poll(max(0.0, due - time.monotonic()) * 1000))
            if self.ended in ready and self._has_ended(watch):
                return
            if self.channel in ready:
                self._serve_channel(ready[self.channel], poll)
            if self.door in ready:
                self._serve_door(ready[self.door])
            if self.asked:
                watch.reason = "asked"
            elif time.monotonic() >= due:
                due = time.monotonic() + self._look(watch)

    def _register(self, poll: select.poll) -> None:
        """Nothing is read that could not be passed on."""
        if self.channel >= 0:
            wanted = select.POLLIN if len(self.unsent) < _ROOM else 0
            poll.register(self.channel, wanted | (select.POLLOUT if self.inward else 0))
        wanted = select.POLLIN if len(self.inward) < _ROOM else 0
        poll.register(self.door, wanted | (select.POLLOUT if self.unsent else 0))

    def _has_ended(self, watch: Watch) -> bool:
        os.read(self.ended, wire.READ)
        found = os.waitid(os.P_PID, watch.child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _look(self, watch: Watch) -> float:
        pause = watch.look()
        if not watch.reason and self._memory_mb() > watch.order.memory_mb:
            watch.reason = "memory"
        return pause

    def _memory_mb(self) -> float:
        """What all processes hold beyond the interpreter they were forked from."""
        own, found = str(os.getpid()), 0
        for name in os.listdir("/proc"):
            if name.isdigit() and name != own:
                with contextlib.suppress(OSError, IndexError):
                    found += max(0, _kb_of(int(name), 1) - self.base_resident_kb)
        return found / 1024

    def _serve_channel(self, event: int, poll: select.poll) -> None:
        if event & select.POLLOUT:
            try:
                del self.inward[: os.write(self.channel, self.inward)]
            except BlockingIOError:
                pass
            except OSError:  # the program has closed its end
                self.inward.clear()
        if event & ~select.POLLOUT and not self._hear_program():
            poll.unregister(self.channel)
            os.close(self.channel)
            self.channel = -1
            self.inward.clear()

    def _hear_program(self) -> bool:
        """Put what the program says into the door; False when it has closed its end."""
        try:
            data = os.read(self.channel, wire.READ)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self.unsent += wire.pack(b"C" if data else b"E", data)
        return bool(data)

    def _serve_door(self, event: int) -> None:
        if event & select.POLLOUT:
            with contextlib.suppress(BlockingIOError):
                del self.unsent[: os.write(self.door, self.unsent)]
        if event & ~select.POLLOUT:
            try:
                data = os.read(self.door, wire.READ)
            except BlockingIOError:
                return
            if not data:
                os._exit(0)  # nobody wants to know
            for frame in self.inbox.feed(data):
                self._obey(frame)

    def _obey(self, frame: wire.Frame) -> None:
        if frame.kind == b"C":
            self.inward += frame.body
        elif frame.kind == b"E" and self.channel >= 0:
            with contextlib.suppress(
                OSError
            ):  # what is still unsent is for a program that hangs up on its judge
                os.write(self.channel, self.inward)
                socket.socket(fileno=os.dup(self.channel)).shutdown(socket.SHUT_WR)
            self.inward.clear()
        elif frame.kind == b"X":
            self.asked = True

    def _tell(self, watch: Watch) -> None:
        """The program's last words, its files, and the report."""
        os.set_blocking(self.door, True)
        while self.channel >= 0 and self._hear_program():
            self._flush()
        self._flush()
        with scratch.collected(self.shape.scratch, watch.order.collect) as files:
            room = _KEPT_FILES
            for name, fd in files.items():
                room -= os.fstat(fd).st_size
                if room >= 0:
                    self.unsent += wire.pack(b"F", marshal.dumps((name, _contents(fd))))
                    self._flush()
        report = {**watch.report(), "trouble": self._trouble()}
        self.unsent += wire.pack(b"R", json.dumps(report).encode())
        self._flush()

    def _flush(self) -> None:
        while self.unsent:
            del self.unsent[: os.write(self.door, self.unsent)]


def _contents(fd: int) -> bytes:
    with open(os.dup(fd), "rb") as file:
        return file.read(_KEPT_FILES)


def _kb_of(pid: int, field: int) -> int:
    """A field of a process's statm: 0 its addresses, 1 what of it is resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[field]) * _PAGE // 1024
