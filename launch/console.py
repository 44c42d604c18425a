"""The console of an attempt: what accelerate and rank 0 print passes through live and is kept in a file."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

KEPT_BYTES = 65536


class Stream:
    """One of the two output streams: a terminal for the ranks where ours is one, else a pipe.

    A progress line that is rewritten in place needs a terminal on the ranks' side too, which a pipe is not.
    """

    def __init__(self, ours: BinaryIO, log: BinaryIO, end_mark: re.Pattern[bytes]) -> None:
        self._ours = ours
        self._log = log
        self._end_mark = end_mark
        self._terminal = os.isatty(ours.fileno())
        self.reading, self.writing = os.openpty() if self._terminal else os.pipe()
        if self._terminal:
            self._plain()
            self.resize()
        os.set_blocking(self.reading, False)
        self.open = True
        self.muted = False
        self.tail = b""
        self.printed = b""

    def _plain(self) -> None:
        """Let bytes through as they are: our own terminal does the translation of line ends."""
        attributes = termios.tcgetattr(self.writing)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.writing, termios.TCSANOW, attributes)

    def resize(self) -> None:
        """Give the ranks' terminal the size of ours."""
        if self._terminal:
            with suppress(OSError):
                size = fcntl.ioctl(self._ours.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self.writing, termios.TIOCSWINSZ, size)

    def copy(self) -> None:
        """Pass on everything that is there now."""
        while self.open:
            try:
                data = os.read(self.reading, 65536)
            except BlockingIOError:
                return
            except (
                OSError
            ):  # a terminal whose other side is closed reports an error, where a pipe reports the end
                data = b""
            if not data:
                self.open = False
                return
            self._log.write(data)
            self._log.flush()
            self.tail = (self.tail + data)[-KEPT_BYTES:]
            if not self.muted:
                self._show(data)

    def _show(self, data: bytes) -> None:
        mark = self._end_mark.search(data)
        part = data[: mark.start()] if mark else data
        try:
            self._ours.write(part)
            self._ours.flush()
            self.printed = (self.printed + part)[-KEPT_BYTES:]
        except OSError:  # e.g. `| head` has gone: the run goes on, and its log is complete
            self.muted = True
        if mark:
            self.muted = True

    def started(self) -> None:
        """The writing side belongs to the child now; without this the end would never be seen."""
        if not self._terminal:
            os.close(self.writing)

    def close(self) -> None:
        """Release what is left."""
        os.close(self.reading)
        if self._terminal:
            os.close(self.writing)


class Console:
    """Both streams of an attempt, kept in one file in the order they came.

    Args:
        log: that file.
        report_of: path of the launching script, whose own stack trace says nothing a person can use; the console
            ends where it, or torchrun's log of dead ranks, begins.
    """

    def __init__(self, log: Path, report_of: str) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("wb")
        sys.stdout.flush()
        sys.stderr.flush()
        trace = rf'Traceback \(most recent call last\):\n  File "{re.escape(report_of)}"'
        log_line = r"[EW]\d{4} [\d:.]+ \d+ torch/distributed/elastic/multiprocessing/api"
        mark = re.compile(rf"^(?:{trace}|{log_line})".encode(), re.MULTILINE)
        self.out = Stream(sys.stdout.buffer, self._log, mark)
        self.err = Stream(sys.stderr.buffer, self._log, mark)

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """Output and error."""
        return self.out, self.err

    def copy(self) -> None:
        """Pass on everything that is there now, on both."""
        for stream in self.streams:
            stream.copy()

    def mute(self) -> None:
        """From here on only the file: a rank has died, and what follows are launchers' reports of that."""
        self.copy()
        for stream in self.streams:
            stream.muted = True

    def shown(self, text: str) -> bool:
        """Whether a text was among the last things printed."""
        words = " ".join(text.split())
        return any(
            words in " ".join(stream.printed.decode(errors="replace").split()) for stream in self.streams
        )

    def close(self) -> None:
        """Release the streams and the file."""
        for stream in self.streams:
            stream.close()
        self._log.close()


def gather_rank_logs(folder: Path) -> None:
    """Turn torchrun's nested `ID/attempt_0/RANK/stdout.log` into `rank-RANK.log` and `rank-RANK.err.log`."""
    for nested in sorted(folder.glob("*/attempt_*/*/std*.log")):
        suffix = ".log" if nested.stem == "stdout" else ".err.log"
        if nested.stat().st_size:
            nested.replace(folder / f"rank-{nested.parent.name}{suffix}")
        else:
            nested.unlink()
    for depth in ("*/attempt_*/*/", "*/attempt_*/", "*/"):
        for emptied in folder.glob(depth):
            with suppress(OSError):
                emptied.rmdir()
