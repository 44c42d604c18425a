"""Where a rank is right now, in a few bytes of shared memory: written by the rank, read by the launcher beside it.

The launcher makes a folder in this machine's memory and names it in `FOLDER_VARIABLE`; each rank maps one page there.
Every change of phase or step is a handful of stores into that page: no system call, no disk, and no thread, which
would go on telling that all is well while the loop hangs.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "TEMPER_HEARTBEATS"
STACKS_SIGNAL = signal.SIGUSR2

STEP_PHASES = ("data", "agree", "forward", "backward", "optimizer", "log")
"""What every optimizer step goes through, in this order; `agree` waits for the other ranks' token counts."""
PHASES = (
    "start",
    "prepare",
    "model",
    "rehearse",
    "resume",
    *STEP_PHASES,
    "validate",
    "evaluate",
    "save",
    "finish",
)
_NUMBER = {phase: number for number, phase in enumerate(PHASES)}

# The page, in words of eight bytes: four integers, one time, the last steps' seconds, then two numbers a phase.
_PULSE, _COUNT, _STEP, _FIRST, _PHASE, _MEASURED, _SINCE = range(7)
_DURATIONS, _KEPT = 8, 32
_TOTALS = _DURATIONS + _KEPT
_LONGEST = _TOTALS + len(PHASES)
_SIZE = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank last wrote.

    Attributes:
        pulse: signs of life so far.
        count: changes of phase so far: ranks of one training go through the same ones, so the smallest is behind.
        phase: one of `PHASES`.
        step: the optimizer step it works on, from 1; None before the first.
        first: the first step of this attempt; None before it.
        since: when this phase began, on the monotonic clock all processes of a machine share.
        durations: seconds of the last steps, oldest first, without the attempt's first.
        seconds: what each phase has taken in all, phases that are over only.
        longest: the longest each phase has taken, its first time left out.
    """

    pulse: int
    count: int
    phase: str
    step: int | None
    first: int | None
    since: float
    durations: tuple[float, ...]
    seconds: dict[str, float]
    longest: dict[str, float]


class Where:
    """What this rank is doing, for its crash file and its heartbeat.

    Args:
        page: the file to map; None: kept in this process alone.

    Attributes:
        folder: where the page is, in this machine's memory; None where there is no page.
        heard: called with each phase that begins, where somebody wants to hear of it.

    Raises:
        OSError: the page cannot be had.
    """

    __slots__ = ("_began", "_numbers", "_phase", "_seen", "_step", "_times", "folder", "heard")

    def __init__(self, page: Path | None = None) -> None:
        self.folder = None if page is None else page.parent
        memory = memoryview(bytearray(_SIZE) if page is None else _mapped(page))
        self._numbers, self._times = memory.cast("q"), memory.cast("d")
        self._phase = 0
        self.heard: Callable[[str], None] | None = None
        self._step: int | None = None
        self._began: float | None = None
        self._seen: set[int] = set()
        self._times[_SINCE] = time.monotonic()
        self._numbers[_PULSE] = 1

    @property
    def phase(self) -> str:
        """The phase under way."""
        return PHASES[self._phase]

    @property
    def step(self) -> int | None:
        """The optimizer step under way, from 1; None before the first."""
        return self._step

    def seconds(self) -> dict[str, float]:
        """What each phase has taken so far, the one under way included."""
        spent = {phase: self._times[_TOTALS + number] for phase, number in _NUMBER.items()}
        spent[self.phase] += time.monotonic() - self._times[_SINCE]
        return spent

    def at(self, phase: str, step: int | None = None) -> None:
        """A phase begins, and perhaps a step, or this one goes on, which is a sign of life.

        Ranks of one training go through the same phases and steps.
        """
        numbers, times, now = self._numbers, self._times, time.monotonic()
        spent = now - times[_SINCE]
        times[_TOTALS + self._phase] += spent
        if self._phase in self._seen:
            if spent > times[_LONGEST + self._phase]:
                times[_LONGEST + self._phase] = spent
        else:
            self._seen.add(self._phase)
        if step is not None and step != self._step:
            self._border(step, now)
        number = _NUMBER[phase]
        if number != self._phase:
            numbers[_COUNT] += 1
            self._phase = numbers[_PHASE] = number
        times[_SINCE] = now
        numbers[_PULSE] += 1
        if self.heard is not None:
            self.heard(phase)

    def _border(self, step: int, now: float) -> None:
        numbers = self._numbers
        if self._step is None:
            numbers[_FIRST] = step
        elif self._step > numbers[_FIRST] and self._began is not None:
            # The first step warms up libraries and caches: what it takes says nothing about the others.
            self._times[_DURATIONS + numbers[_MEASURED] % _KEPT] = now - self._began
            numbers[_MEASURED] += 1
        self._step = numbers[_STEP] = step
        self._began = now


def begin(rank: int) -> Where:
    """The heartbeat of this process; from now on `STACKS_SIGNAL` writes its stacks beside it.

    Without a launcher that reads it, or memory for a page, it is kept in this process alone.
    """
    # Taken out of the environment: a process that this rank starts is no rank.
    named = os.environ.pop(FOLDER_VARIABLE, "")
    folder = Path(named)
    if not named or not folder.is_dir():
        return Where()
    try:
        faulthandler.register(STACKS_SIGNAL, stacks(folder, rank).open("a"), all_threads=True)
        return Where(page(folder, rank))
    except OSError:
        return Where()


def page(folder: Path, rank: int) -> Path:
    """The file of a rank's heartbeat."""
    return folder / f"rank-{rank}"


def stacks(folder: Path, rank: int) -> Path:
    """The file a rank's stacks are written to when it is sent `STACKS_SIGNAL`."""
    return folder / f"stacks-rank-{rank}.txt"


def read(file: Path) -> Beat | None:
    """What a rank last wrote; None where it has not begun, or wrote nothing that can be read."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if len(data) != _SIZE:
        return None
    numbers, times = memoryview(data).cast("q"), memoryview(data).cast("d")
    if not numbers[_PULSE] or not 0 <= numbers[_PHASE] < len(PHASES):
        return None
    measured = numbers[_MEASURED]
    kept = range(max(0, measured - _KEPT), measured)
    return Beat(
        pulse=numbers[_PULSE],
        count=numbers[_COUNT],
        phase=PHASES[numbers[_PHASE]],
        step=numbers[_STEP] or None,
        first=numbers[_FIRST] or None,
        since=times[_SINCE],
        durations=tuple(times[_DURATIONS + number % _KEPT] for number in kept),
        seconds={phase: times[_TOTALS + number] for phase, number in _NUMBER.items()},
        longest={phase: times[_LONGEST + number] for phase, number in _NUMBER.items()},
    )


def _mapped(file: Path) -> mmap.mmap:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # Taken now: a page that a full memory file system cannot give would end the rank at its first store.
        os.posix_fallocate(descriptor, 0, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)
