"""Progress for the eye: one living line on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

_BAR = 16
_CLEAR = "\r\x1b[2K"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. None is not shown; `scores`, e.g. {"pass@1": 0.42}, are shown as percentages."""

    step: int
    total: int
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    trained_tokens_per_second: float | None = None
    memory_bytes: int | None = None
    eta_seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


class Line:
    """Shows `Progress`, and sentences between, on one stream.

    Args:
        stream: where; None: standard error.
        live: rewrite one line; None: when the stream is a terminal.
        every_seconds: between two plain lines; the first and the last step are always shown.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        live: bool | None = None,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() if live is None else live
        self._every = every_seconds if not self._live else 0.05
        self._clock = clock
        self._shown_at: float | None = None
        self._current = ""

    def show(self, progress: Progress) -> None:
        """Show where the run stands, unless it was shown a moment ago."""
        now = self._clock()
        due = self._shown_at is None or now - self._shown_at >= self._every
        if not due and progress.step < progress.total:
            return
        self._shown_at = now
        parts = describe(progress)
        if self._live:
            self._draw(progress, parts)
        else:
            self._write("  ".join(parts) + "\n")

    def say(self, text: str) -> None:
        """A sentence that stays, above the living line."""
        self._write(f"{_CLEAR}{text}\n{self._current}" if self._current else f"{text}\n")

    def close(self) -> None:
        """Leave the living line as it is and go below it."""
        if self._current:
            self._current = ""
            self._write("\n")

    def _draw(self, progress: Progress, parts: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        parts = [bar(progress.step / max(1, progress.total)), *parts]
        # Too narrow a terminal: what comes last matters least, but a wrapped line could not be rewritten.
        while len(parts) > 1 and len("  ".join(parts)) > width:
            parts.pop(0 if parts[0][:1] in "━╸╺" else -1)
        gap = "  " if os.environ.get("NO_COLOR") else f"{_DIM} │ {_PLAIN}"
        if not os.environ.get("NO_COLOR") and len(" │ ".join(parts)) > width:
            gap = "  "
        self._current = gap.join(parts)
        self._write(_CLEAR + self._current)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def describe(progress: Progress) -> list[str]:
    """The parts of a progress line, the most important first."""
    digits = len(str(progress.total))
    parts = [f"step {progress.step:>{digits}}/{progress.total}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    parts += [f"{name} {100 * value:.1f}%" for name, value in progress.scores.items()]
    if progress.eta_seconds is not None and progress.step < progress.total:
        parts.append(f"eta {duration(progress.eta_seconds)}")
    if progress.tokens_per_second is not None:
        trained = progress.trained_tokens_per_second
        of_these = "" if trained is None else f" ({count(trained)} trained)"
        parts.append(f"{count(progress.tokens_per_second)} tok/s{of_these}")
    if progress.learning_rate is not None:
        parts.append(f"lr {progress.learning_rate:.2e}")
    if progress.memory_bytes is not None:
        parts.append(f"mem {memory(progress.memory_bytes)}")
    return parts


def bar(share: float) -> str:
    """A bar of sixteen characters, filled by `share` of one."""
    halves = round(max(0.0, min(1.0, share)) * 2 * _BAR)
    full, half = divmod(halves, 2)
    return ("━" * full + "╸" * half).ljust(_BAR, "╺" if os.environ.get("NO_COLOR") else " ")


def count(number: float) -> str:
    """A number in three digits or so: 950, 1.2k, 34k, 5.6M."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 999.5 or unit == "G":
            break
        number /= 1000
    return f"{number:.1f}{unit}" if unit and abs(number) < 99.95 else f"{number:.0f}{unit}"


def duration(seconds: float) -> str:
    """Seconds in two units at most: 9s, 3m20s, 1h05m, 2d03h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


def memory(size: int) -> str:
    """Bytes in MiB or GiB."""
    mebibytes = size / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GiB"
