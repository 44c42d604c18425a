"""A program with the verdicts that are right for it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.sandbox import Limits, Program


@dataclass(frozen=True, slots=True)
class Trial:
    """One program of a soak."""

    name: str
    """Its kind, a comma, and which one of that kind."""
    program: Program
    allowed: tuple[str, ...]
    limits: Limits = Limits()

    @property
    def kind(self) -> str:
        """What it is counted under."""
        return self.name.partition(",")[0]
