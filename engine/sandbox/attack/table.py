"""The result of a drill in a few lines: classes and programs held by category, and every failure explained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .classes import CATEGORIES, CLASSES
from .drill import Outcome


class Tally:
    """All outcomes of one drill, counted. A class is held when each of its programs that was tried is."""

    def __init__(self, outcomes: Sequence[Outcome], left: Sequence[str] = ()) -> None:
        self.outcomes = outcomes
        self.left = left
        """What the closed pool left behind."""

    @property
    def held(self) -> bool:
        """Whether nothing went wrong."""
        return not self.left and all(outcome.held for outcome in self.outcomes)

    def classes(self, category: str | None = None) -> tuple[int, int, int]:
        """How many classes were held, how many not tried, and how many there are."""
        by_class: dict[int, list[Outcome]] = {}
        for outcome in self._of(category):
            by_class.setdefault(outcome.number, []).append(outcome)
        untried = sum(all(o.skipped for o in outcomes) for outcomes in by_class.values())
        held = sum(all(o.held for o in outcomes) for outcomes in by_class.values()) - untried
        return held, untried, len(by_class)

    def _of(self, category: str | None) -> list[Outcome]:
        return [o for o in self.outcomes if category in (None, o.category)]

    def lines(self) -> Iterable[str]:
        """The table, then what was not held or not tried, each with its reason."""
        yield f"{'category':<12}{'classes':>10}{'programs':>12}"
        for category in CATEGORIES:
            outcomes = [o for o in self._of(category) if not o.skipped]
            if outcomes:
                held, untried, classes = self.classes(category)
                good = sum(o.held for o in outcomes)
                yield f"{category:<12}{held:>6}/{classes - untried:<3}{good:>7}/{len(outcomes):<4}"
        for outcome in self.outcomes:
            title = f"class {outcome.number} ({CLASSES[outcome.number]}), {outcome.name}, as {outcome.form}"
            if outcome.skipped:
                yield f"not tried: {title}: {outcome.skipped}"
            elif not outcome.held:
                yield f"NOT HELD: {title}: {'; '.join(outcome.problems)}"
        for trace in self.left:
            yield f"NOT HELD: after the pool was closed: {trace}"

    def summary(self, level: str, mode: str) -> str:
        """One sentence."""
        held, untried, classes = self.classes()
        rest = f", {untried} not tried" if untried else ""
        return f"{held} of {classes} classes held at level {level}, mode {mode}{rest}"
