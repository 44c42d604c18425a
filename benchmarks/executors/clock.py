"""CPU time of all processes that this one starts, those that ended included."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_SOFTWARE, _TASK_CLOCK, _INHERIT, _CLOSE_ON_EXEC = 1, 1, 1 << 1, 8
_ATTRIBUTES = struct.Struct("<IIQQQQQIIQ")
_VALUE = struct.Struct("<Q")


class Clock:
    """Two counts, each of which may only miss something, so the larger is nearer to the truth.

    What the kernel adds up as processes are waited for lacks those whose parent was killed with them, as the
    last of a PID namespace are. What a performance counter sees lacks some of the very start and end of each
    process.
    """

    def __init__(self, counter: int | None) -> None:
        self._counter = counter
        self._waited, self._counted = _waited_seconds(), self._counter_seconds()

    def lap(self) -> float:
        """Seconds, user and system, since the last call."""
        waited, counted = _waited_seconds(), self._counter_seconds()
        spent = max(waited - self._waited, counted - self._counted)
        self._waited, self._counted = waited, counted
        return spent

    def _counter_seconds(self) -> float:
        """Without this thread's own, which the counter includes."""
        if self._counter is None:
            return 0.0
        (nanoseconds,) = _VALUE.unpack(os.read(self._counter, _VALUE.size))
        return float(nanoseconds) / 1e9 - time.thread_time()


@contextmanager
def running() -> Iterator[Clock]:
    """A clock for what this thread starts from now on; without a counter where the kernel grants none."""
    counter = _open_counter()
    try:
        yield Clock(counter)
    finally:
        if counter is not None:
            os.close(counter)


def _open_counter() -> int | None:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        return None
    packed = _ATTRIBUTES.pack(_SOFTWARE, _ATTRIBUTES.size, _TASK_CLOCK, 0, 0, 0, _INHERIT, 0, 0, 0)
    attributes = ctypes.create_string_buffer(packed, _ATTRIBUTES.size)
    counter = ctypes.CDLL(None).syscall(number, attributes, 0, -1, -1, _CLOSE_ON_EXEC)
    return None if counter < 0 else int(counter)


def _waited_seconds() -> float:
    """Of all descendants, and of all whose end was waited for, by them or by this process.

    A process that ends moves its time to its parent's, so the sum only grows.
    """
    me = psutil.Process()
    own = me.cpu_times()
    whole: float = own.children_user + own.children_system
    for member in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            whole += sum(member.cpu_times()[:4])
    return whole
