"""Where an attempt's time went and how much was trained in it: sums alone, however long the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine.heartbeat import STEP_PHASES, Where

ASIDE = ("validate", "evaluate", "save")
FIRST_STEP = "first step"


@dataclass(frozen=True, slots=True)
class Amount:
    """What steps trained on.

    Attributes:
        steps: how many.
        tokens: of samples, over all ranks.
        trained_tokens: those among them that the loss looks at, over all ranks.
        places: places of rows on this rank, padding included.
        attended: pairs of tokens on this rank (see `Batch.attended`).
    """

    steps: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    places: int = 0
    attended: int = 0

    def less(self, other: Amount) -> Amount:
        """What is left without another."""
        return Amount(
            self.steps - other.steps,
            self.tokens - other.tokens,
            self.trained_tokens - other.trained_tokens,
            self.places - other.places,
            self.attended - other.attended,
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """An attempt's sums on one rank.

    Attributes:
        seconds: of the loop, by phase; what the first step took is kept apart. Together they are the loop's time.
        device: of the device's own time in steps that were looked at, by phase; empty where none was.
        watched: how many steps those are.
        all: what all steps trained on.
        warm: the same without the first step, or with it where it is the only one.
        saves: checkpoints saved.
        save_seconds: what they held the training up for.
        longest_save: the longest of them.
    """

    seconds: dict[str, float]
    device: dict[str, float]
    watched: int
    all: Amount
    warm: Amount
    saves: int
    save_seconds: float
    longest_save: float

    @property
    def warm_seconds(self) -> float:
        """Time in the steps of `warm`, validation and saving left out."""
        if self.warm.steps == self.all.steps:
            return self.seconds[FIRST_STEP]
        return sum(self.seconds[phase] for phase in STEP_PHASES)


class Perf:
    """Adds up phases, tokens and saves of one attempt.

    The time is what the rank's heartbeat counts anyway, so a step costs a few additions. On a GPU the host is ahead of
    the device, and its time in `forward` says how long it took to ask: there, events are recorded at the borders of
    phases, in logged steps only, where the device is waited for as it is.

    Args:
        where: this rank's phases.
        event: makes an event that can be recorded on the device's stream; None where the host computes.
    """

    def __init__(self, where: Where, *, event: Callable[[], Any] | None = None) -> None:
        self._where = where
        self._event = event
        self._before: dict[str, float] | None = None
        self._amount = Amount()
        self._first: Amount | None = None
        self._first_seconds: dict[str, float] = {}
        self._marks: list[tuple[str, Any]] = []
        self._device: dict[str, float] = {}
        self._watched = 0
        self._saves: tuple[int, float, float] = (0, 0.0, 0.0)

    def begin(self, *, watched: bool) -> None:
        """A step begins; `watched` where it is logged."""
        if self._before is None:
            # Whatever was computed before, to try something out, is no part of the training.
            self._before, self._amount = self._where.seconds(), Amount()
        # The first step warms the device up as well.
        if self._event is not None and watched and self._first is not None:
            self._where.heard = self._mark

    def take(self, *, places: int, attended: int) -> None:
        """What this rank is given to compute in the step (see `Amount`)."""
        old = self._amount
        self._amount = replace(old, places=old.places + places, attended=old.attended + attended)

    def step(self, tokens: int, trained_tokens: int) -> None:
        """A step is done, by all ranks together on so many tokens."""
        old = self._amount
        self._amount = replace(
            old,
            steps=old.steps + 1,
            tokens=old.tokens + tokens,
            trained_tokens=old.trained_tokens + trained_tokens,
        )
        if self._where.heard is not None:
            self._where.heard = None
            self._read_marks()
        if self._first is None:
            self._first = self._amount
            spent = self._since()
            self._first_seconds = {phase: spent[phase] for phase in STEP_PHASES}

    def saved(self, seconds: float) -> None:
        """A checkpoint is saved, which took the training so long."""
        count, total, longest = self._saves
        self._saves = (count + 1, total + seconds, max(longest, seconds))

    def totals(self) -> Totals:
        """The sums so far."""
        spent = self._since()
        seconds = {phase: spent[phase] for phase in (*STEP_PHASES, *ASIDE)}
        for phase, first_seconds in self._first_seconds.items():
            seconds[phase] -= first_seconds
        seconds[FIRST_STEP] = sum(self._first_seconds.values())
        first = self._first or Amount()
        warm = self._amount.less(first) if self._amount.steps > 1 else self._amount
        return Totals(seconds, dict(self._device), self._watched, self._amount, warm, *self._saves)

    def _since(self) -> dict[str, float]:
        """Seconds by phase since the first step began."""
        now = self._where.seconds()
        before = now if self._before is None else self._before
        return {phase: now[phase] - before[phase] for phase in now}

    def _mark(self, phase: str) -> None:
        assert self._event is not None
        event = self._event()
        event.record()
        self._marks.append((phase, event))

    def _read_marks(self) -> None:
        self._mark("log")
        self._marks[-1][1].synchronize()
        for (phase, begins), (_, ends) in zip(self._marks, self._marks[1:], strict=False):
            self._device[phase] = self._device.get(phase, 0.0) + begins.elapsed_time(ends) / 1000
        self._watched += 1
        self._marks.clear()
