"""What outlives the launcher for a moment: when the launcher is killed, the processes it started are killed too."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from launch import processes


class Watchdog:
    """A small process of its own that waits for this one to end.

    It holds the reading end of a pipe whose writing end only the launcher has: however the launcher ends, the pipe
    closes. A launcher that ends well says so first, through `dismiss`.

    Args:
        mark: `NAME=value` that the attempt's processes have in their environment.
        last_words: called in the watchdog's process once all of them are gone.
    """

    def __init__(self, mark: bytes, last_words: Callable[[], None]) -> None:
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            try:
                _wait(reading, mark, last_words)
            finally:
                os._exit(0)
        os.close(reading)

    def dismiss(self) -> None:
        """The launcher has cleaned up by itself."""
        with suppress(BrokenPipeError):
            os.write(self._writing, b".")
        os.close(self._writing)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _wait(reading: int, mark: bytes, last_words: Callable[[], None]) -> None:
    # Signals that end the launcher (Ctrl-C goes to the whole terminal group) must not end its watchdog before it.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    # An open console would keep a shell's pipe waiting for this process.
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    if os.read(reading, 1) != b".":
        processes.kill_all(mark, spare=frozenset({os.getpid()}))
        last_words()
