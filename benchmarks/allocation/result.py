"""What came of a case: the plan's bytes beside the measured ones, and when that is a failure of the benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from allocation.case import Case

BOUND = 0.05
"""Relative error, either way, above which the plan is wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """A case's bytes: planned, by the ledger, by MemTracker where it can follow the strategy (None: ranks failed)."""

    case: Case
    phase: str
    planned: int
    ledger: int | None
    memtracker: int | None

    @property
    def measured(self) -> int | None:
        """MemTracker's figure, or the ledger's where MemTracker has none."""
        return self.memtracker if self.memtracker is not None else self.ledger

    @property
    def error(self) -> float | None:
        """Relative error of the plan: above 0 it planned too much."""
        return None if self.measured is None else self.planned / self.measured - 1


def faults(results: Sequence[Result]) -> Iterator[str]:
    """A sentence for each case that was not measured, or that the plan misses by more than the bound."""
    for one in results:
        name = f"{one.case.strategy}, {one.case.name}"
        if one.ledger is None:
            yield f"{name}: the ranks failed under the ledger"
        if one.memtracker is None and one.case.tracked:
            yield f"{name}: the ranks failed under MemTracker"
        if one.error is not None and abs(one.error) > BOUND:
            yield f"{name}: the plan is off by {one.error:+.1%}, more than {BOUND:.0%}"


def spread(name: str, errors: Sequence[float]) -> str:
    """A row: how many, least, median and most error, and the largest either way."""
    within = sum(abs(error) <= BOUND for error in errors)
    return (
        f"| {name} | {len(errors)} | {min(errors):+.1%} | {statistics.median(errors):+.1%} | {max(errors):+.1%} "
        f"| {max(map(abs, errors)):.1%} | {within} of {len(errors)} |"
    )
