"""A request that has been understood: the programs it wants run, and how their verdicts are told in its own shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import WishError
from ..case import Case as Checked
from ..verdict import Limits, Program, Verdict
from .fields import bad

MOST_CASES = 4096
"""Programs that one request may bring."""


@dataclass(frozen=True, slots=True)
class Case:
    """One program and its limits."""

    program: Program
    limits: Limits

    @classmethod
    def of(cls, program: Program, limits: Limits) -> Case:
        """Refuses what the sandbox itself would refuse, before it waits its turn."""
        try:
            Checked.of(program, limits)
        except WishError as error:
            bad(str(error))
        return cls(program, limits)


@dataclass(frozen=True, slots=True)
class Asked:
    """`answer` takes the verdicts of all `cases`, in their order."""

    cases: Sequence[Case]
    answer: Callable[[Sequence[Verdict]], Any]
