"""One container of an outer engine, from its start to its last trace: it holds one program and is never used again."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from .. import cgroup, codec, jail, kernel, scratch, wire
from .bundle import Bundle
from .engines import PATH

_START_SECONDS = 60.0
_LOOK_MS = 500
_END_SECONDS = 10.0
_MOST_WORDS = 300
_ENGINE_MB = {"runsc": 256, "podman": 64}
"""Memory of the engine's own kernel or monitor and of the first interpreter, on top of what a program may use."""
_ENGINE_PROCESSES = {"runsc": 512, "podman": 64}
"""Threads of the engine's own; in gVisor each process of a program costs several."""
_PLACES = (3, 4, 5)
"""Where podman passes descriptors on. Who starts containers must hold these taken by something of no use."""
_LARGEST = 128 << 20
"""A frame from inside: a collected file is the largest."""


class ContainerError(Exception):
    """The engine could not start a container, or lost it; the message has the engine's last words."""


class Container:
    """A warm interpreter in a container of its own, which becomes one program when it is told to."""

    def __init__(self, engine: str, bundle: Bundle, name: str) -> None:
        self.engine, self.bundle, self.name = engine, bundle, name
        self.group: cgroup.Group | None = None
        with contextlib.suppress(
            OSError
        ):  # without one, memory is bounded by process and looked at from inside
            self.group = cgroup.create()
        self.door, theirs = socket.socketpair()
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        try:
            self.process = self._start(theirs.fileno(), out, err)
        except OSError:
            if self.group:
                self.group.close()
            raise
        finally:
            theirs.close()
            os.close(out)
            os.close(err)
        self.inbox = wire.Inbox(_LARGEST)
        self.warm = False
        with contextlib.suppress(BrokenPipeError):  # it has ended already, as whoever waits for it will hear
            wire.send(self.door.fileno(), b"S", replace(bundle.shape, scratch=jail.SCRATCH).pack())

    def _start(self, door: int, out: int, err: int) -> subprocess.Popen[bytes]:
        executable, home = self.bundle.shape.executable, self.bundle.folder
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": home, "XDG_RUNTIME_DIR": home}
        if self.engine == "runsc":
            return self._spawn(self.bundle.runsc(executable, self.name), environment, (door, out, err))
        for place, fd in zip(_PLACES, (door, out, err), strict=True):
            os.dup2(fd, place)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            command = self.bundle.podman(executable, self.name)
            environment["CONTAINERS_CONF"] = self.bundle.podman_settings
            return self._spawn(command, environment, (null, null, err), _PLACES)
        finally:
            for place in _PLACES:
                os.dup2(null, place)
            os.close(null)

    def _spawn(
        self,
        command: list[str],
        environment: dict,
        streams: tuple[int, int, int],
        given: tuple[int, ...] = (),
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            cwd="/",
            env=environment,
            pass_fds=given,
            preexec_fn=self._before_exec,
            start_new_session=True,
        )

    def _before_exec(self) -> None:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.group:
            self.group.add(os.getpid())

    def wait_until_warm(self, control: int) -> None:
        """Raises ContainerError when its first process does not report in time, or nobody is left at `control`."""
        deadline = time.monotonic() + _START_SECONDS
        poll = select.poll()
        poll.register(self.door, select.POLLIN)
        poll.register(control, 0)
        while not self.warm:
            ready = dict(poll.poll(_LOOK_MS))
            if control in ready:
                raise ContainerError("nobody waits for it any more")
            if self.door.fileno() in ready:
                self._hear_first_word()
            elif self.process.poll() is not None:
                raise ContainerError(self.last_words())
            elif time.monotonic() > deadline:
                raise ContainerError(f"a container was not ready after {_START_SECONDS:g} s")

    def _hear_first_word(self) -> None:
        try:
            data = os.read(self.door.fileno(), wire.READ)
        except ConnectionResetError:
            data = b""
        if not data:
            raise ContainerError(self.last_words())
        with contextlib.suppress(codec.Malformed):
            for frame in self.inbox.feed(data):
                if frame.kind != b"H":
                    raise ContainerError(frame.body[:_MOST_WORDS].decode("utf-8", "replace"))
                self.warm = True

    def last_words(self) -> str:
        """What the engine said on its stderr, once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        os.set_blocking(self.err, False)
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(self.err, wire.READ)
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        words = lines[-1] if lines else "it said nothing"
        return f"the container ended by itself: {words}"[:_MOST_WORDS]

    def limit(self, memory_mb: int, processes: int) -> None:
        """Bound the whole of it, engine included."""
        if self.group:
            room = _ENGINE_PROCESSES[self.engine]
            if self.engine == "runsc":
                processes *= 4
            self.group.limit(memory_mb + _ENGINE_MB[self.engine], processes + room)

    def stop(self) -> None:
        """End all that runs in it; the streams come to their ends when this returns."""
        with contextlib.suppress(OSError):
            self.door.shutdown(socket.SHUT_RDWR)  # its first process leaves at the end of the stream
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill_all()
            self.process.wait()
        deadline = time.monotonic() + _END_SECONDS
        while _reap():  # monitors and file servers the engine left to this process
            if time.monotonic() > deadline:
                self._kill_all()
            time.sleep(0.002)

    def kill(self) -> None:
        """As `stop`, for one that must not go on for a moment."""
        self._kill_all()
        self.stop()

    def _kill_all(self) -> None:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave no process, group or file of it."""
        self.stop()
        self.door.close()
        for fd in (self.out, self.err):
            os.close(fd)
        if self.group:
            self.group.close()
        place = Path(self.bundle.folder, self.name)
        if place.exists():
            scratch.empty(str(place))
            place.rmdir()


def _reap() -> bool:
    """Take the ends of children; whether one is left. There is never more than one container at a time."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _descendants(root: int) -> list[int]:
    """All processes below `root`, nearest first."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(name))
    found, left = [], [root]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found
