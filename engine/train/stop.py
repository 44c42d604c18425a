"""Being asked to stop: signals raise a flag, the loop reads it at a step border."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

ASKED_BY = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopFlag:
    """Whether this rank was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None


@contextlib.contextmanager
def listen() -> Iterator[StopFlag]:
    """Turn SIGTERM, SIGUSR1 and the first Ctrl-C into a flag; the second Ctrl-C ends the process at once.

    The handlers that were there before are put back at the end.
    """
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and flag.reason == "SIGINT":
            os._exit(128 + number)
        flag.reason = signal.Signals(number).name

    before = {number: signal.signal(number, ask) for number in ASKED_BY}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
