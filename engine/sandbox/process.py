"""A worker process as the pool sees it: started by exec, spoken to without ever blocking, replaced when it dies."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
import time
from dataclasses import asdict

from ..errors import WishError
from . import codec, wire
from .keeper import start_interpreter
from .outer import engines
from .worker import Setup

_TRUSTED_BYTES = 256 << 20
_START_SECONDS = 120.0
_END_SECONDS = 60.0


class WorkerDied(Exception):
    """The worker process ended or stopped answering."""


class Process:
    """A worker process. It carries nothing of this process's memory, since it is started by exec."""

    def __init__(self, levels: list[str], setup: Setup, disk_mb: int, place: int) -> None:
        self.levels = levels
        self.setup = setup
        self.disk_mb = disk_mb
        self.level = ""
        self.problems: dict[str, str] = {}
        self.eager_pages = 0
        self.place = place
        self._lock = threading.Lock()
        self._start()

    def _start(self, *, after: int | None = None) -> None:
        """`after`: the worker this one replaces, whose leavings it clears first. Raises WishError."""
        try:
            link, theirs = socket.socketpair()
            with theirs:
                self.process = start_interpreter("worker", theirs.fileno())
        except OSError as error:
            raise WishError(
                f"a sandbox worker cannot be started: {error}",
                "leave this process room for more processes, memory and descriptors",
            ) from None
        link.setblocking(False)
        self._inbox = wire.Inbox(_TRUSTED_BYTES)
        hello = {
            "levels": self.levels,
            "disk_mb": self.disk_mb,
            "after": after,
            "place": self.place,
            "setup": asdict(self.setup),
        }
        with self._lock:  # nothing that another thread posts may come before it
            self.link = link
            self._unsent = bytearray(wire.pack(b"O", codec.encode(hello)))
            self._flush()

    def wait_until_open(self) -> None:
        """Raises WishError when the worker can give none of the levels."""
        deadline = time.monotonic() + _START_SECONDS
        try:
            frames: list[wire.Frame] = []
            while not frames:
                frames = self.receive(deadline)
        except WorkerDied as error:
            raise WishError(
                f"a sandbox worker ended while it started ({error})", "see the kernel's log"
            ) from None
        answer = codec.decode(frames[0].body)
        self.level, self.problems = answer["level"], answer["problems"]
        self.eager_pages = answer["eager_pages"]
        if not self.level and self.setup.engine in self.problems:
            raise engines.refusal(self.setup.engine, self.problems[self.setup.engine])
        if not self.level:
            reasons = "; ".join(f"{level}: {why}" for level, why in self.problems.items())
            raise WishError(
                f"this machine cannot isolate programs at level {' or '.join(self.levels)} ({reasons})",
                "ask for a weaker level, or let an administrator allow user namespaces (sysctl "
                "user.max_user_namespaces above 0; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a "
                "container a seccomp profile that allows unshare and mount); level full also needs a writable "
                "cgroup with memory and pids",
            )
        # a worker that is replaced later must be as strong as the one its pool was opened with
        self.levels = [self.level]
        self.level = self.setup.engine or self.level

    def post(self, kind: bytes, body: bytes = b"") -> None:
        """Send, or keep for later what the socket does not take now. May be called from any thread."""
        with self._lock:
            self._unsent += wire.pack(kind, body)
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                del self._unsent[: self.link.send(self._unsent)]
            except BlockingIOError:
                return
            except OSError:  # it is gone: whoever waits for its answer hears of it
                self._unsent.clear()

    def receive(self, deadline: float) -> list[wire.Frame]:
        """What has come, after waiting for something to come; perhaps no whole frame yet. Raises WorkerDied."""
        if self.link.fileno() < 0:
            raise WorkerDied("it could not be started again")
        poll = select.poll()
        poll.register(self.link, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise WorkerDied("no answer in time")
        if ready[0][1] & select.POLLOUT:
            with self._lock:
                self._flush()
        if ready[0][1] & ~select.POLLOUT:
            try:
                data = self.link.recv(wire.READ)
            except OSError as error:
                raise WorkerDied(str(error)) from None
            if not data:
                raise WorkerDied("it closed its end")
            try:
                return self._inbox.feed(data)
            except codec.Malformed as error:
                raise WorkerDied(str(error)) from None
        return []

    def restart(self) -> None:
        """End it and start another. Raises WishError when that cannot isolate programs any more."""
        self.process.kill()
        self.close()
        self._start(after=self.process.pid)
        self.wait_until_open()

    def hang_up(self) -> None:
        """The worker ends itself, and all it keeps, when its supervisor's end closes."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, and wait until it is gone."""
        self.hang_up()
        self.link.close()
        if self.process.stdout:
            self.process.stdout.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # whatever it waits for, its jails end with it
            self.process.kill()
            self.process.wait()
