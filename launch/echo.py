"""What other ranks than the first warn of, on the console: each line with its host and rank, equal lines once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.5
# Ranks that say the same do so within this time; a rank's last words before it dies are told by the verdict instead.
HOLD_SECONDS = 1.5
AGAIN_SECONDS = 60.0
MOST_LINES = 10
NOTABLE = re.compile(r"\b(?:WARNING|WARN|ERROR|CRITICAL|FATAL)\b|\b\w*(?:Warning|Error|Exception): ")


@dataclass(slots=True)
class _Line:
    """A line that was said, by whom first, how often since it was last shown, and when it may be shown."""

    first: int
    count: int
    due: float


class Echo:
    """The files that torchrun writes for ranks 1 and up, read as they grow.

    Args:
        logs: the folder given to torchrun as --log_dir.
        host: this machine's name.
        shown: whether the first rank has shown a text already.
        write: takes the lines for the console.
        clock: seconds, monotonic.
        first_rank: the number of this machine's first rank among all ranks.
    """

    def __init__(
        self,
        logs: Path,
        host: str,
        shown: Callable[[str], bool],
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        first_rank: int = 0,
    ) -> None:
        self._first_rank = first_rank
        self._logs, self._host, self._shown, self._write, self._clock = logs, host, shown, write, clock
        self._read: dict[Path, int] = {}
        self._lines: dict[str, _Line] = {}
        self._looked = clock()
        self.muted = False

    def look(self) -> None:
        """Read on, and show what is due."""
        now = self._clock()
        if self.muted or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for file in sorted(self._logs.glob("*/attempt_*/*/std*.log")):
            self._follow(file, self._first_rank + int(file.parent.name), now)
        self._show(now)

    def _follow(self, file: Path, rank: int, now: float) -> None:
        try:
            with file.open("rb") as log:
                log.seek(self._read.get(file, 0))
                whole, _, _ = log.read().rpartition(b"\n")
        except OSError:
            return
        if whole:
            self._read[file] = self._read.get(file, 0) + len(whole) + 1
        for text in whole.decode(errors="replace").splitlines():
            if NOTABLE.search(text):
                line = self._lines.setdefault(text.strip(), _Line(rank, 0, now + HOLD_SECONDS))
                line.count += 1

    def _show(self, now: float) -> None:
        due = [(text, line) for text, line in self._lines.items() if line.count and line.due <= now]
        told = 0
        for text, line in due:
            # Looking through what was printed takes longer than counting, and a flood has many lines.
            if told >= MOST_LINES or not self._shown(text):
                told += 1
                if told <= MOST_LINES:
                    times = f" (x{line.count})" if line.count > 1 else ""
                    self._write(f"{self._host}:{line.first}{times} {text}")
            line.count, line.due = 0, now + AGAIN_SECONDS
        self._lines = {text: line for text, line in self._lines.items() if line.count or line.due > now}
        if told > MOST_LINES:
            self._write(f"{self._host}: {told - MOST_LINES} more such lines of other ranks: see {self._logs}")
