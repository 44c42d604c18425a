"""A zygote's stand-in where programs run in an outer engine: the same orders and reports, a container a program.

It runs no stranger's code. The next container is started while nobody waits for it, as soon as a program has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket

from .. import kernel, scratch
from ..jail import Shape
from .bundle import Bundle, leave_hybrid_cgroups
from .container import Container, ContainerError
from .trial import Trial

_PACKET = 1 << 16
_RESERVED = 16


def main(control_fd: int) -> None:
    """Start one container to see that it can be done, say how that went, and serve until the worker goes away."""
    control = socket.socket(fileno=fcntl.fcntl(control_fd, fcntl.F_DUPFD_CLOEXEC, _RESERVED))
    os.close(control_fd)
    null = os.open(os.devnull, os.O_RDWR)
    while null < _RESERVED - 1:
        null = os.dup(null)
    kernel.prctl(
        kernel.PR_SET_CHILD_SUBREAPER, 1
    )  # engines leave processes behind that only a parent can wait for
    shape = Shape.read(control.recv(_PACKET))
    outer: Outer | None = None
    try:
        if shape.level == "podman":
            leave_hybrid_cgroups()
        outer = Outer(control, shape)
        outer.warm_one()
    except (OSError, ContainerError) as error:
        control.send(_pack({"failed": str(error)}))
    else:
        control.send(_pack({"ready": True}))
        with contextlib.suppress(BrokenPipeError):
            outer.serve()
    finally:
        if outer:
            outer.close()


class Outer:
    """One container ahead of the program it is for."""

    def __init__(self, control: socket.socket, shape: Shape) -> None:
        self.control = control
        self.shape = shape
        self.names = (f"temper-{os.getpid()}-{number}" for number in itertools.count())
        self.spare: Container | None = None
        self.bundle = Bundle(f"{shape.scratch}/bundle", shape)

    def _start(self) -> Container:
        return Container(self.shape.level, self.bundle, next(self.names))

    def warm_one(self) -> None:
        """Have a container that waits for its program."""
        self.spare = self._start()
        self.spare.wait_until_warm(self.control.fileno())

    def serve(self) -> None:
        """Run what is ordered until the worker hangs up."""
        while True:
            data, fds, _, _ = socket.recv_fds(self.control, _PACKET, 8)
            if not data:
                return
            message = json.loads(data)
            if "run" not in message:
                continue  # an order to end a program that had already ended
            if not self._carry_out(message["run"], fds):
                return

    def _carry_out(self, order: dict, fds: list[int]) -> bool:
        """Run one program and report; False when the worker went away meanwhile."""
        trial = Trial(self.control, order, fds)
        container, self.spare = self.spare or self._start(), None
        try:
            trial.run(container)
        finally:
            container.close()
            trial.close()
        if not trial.orphaned:
            report, files = trial.outcome()
            try:
                socket.send_fds(self.control, [_pack(report)], files)
            finally:
                for fd in files:
                    os.close(fd)
            self.spare = self._start()
        return not trial.orphaned

    def close(self) -> None:
        """Leave nothing behind, also where the worker was killed and cannot see to it."""
        if self.spare:
            self.spare.close()
        with contextlib.suppress(OSError):
            scratch.empty(self.shape.scratch)
            os.rmdir(self.shape.scratch)


def _pack(message: dict) -> bytes:
    return json.dumps(message).encode()
