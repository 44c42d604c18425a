"""Paired statistics: whether two sets of pass rates on the same tasks differ by more than chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import compress
from math import gcd, lcm
from typing import Any

from engine.evaluate.passk import bootstrap, wilson

DRAWS = 10_000
"""Of the sign-flip test where its exact distribution would take too long."""
MOST_STEPS = 4_000_000
"""Additions of the exact distribution: about half a second."""
LEVEL = 0.05
"""Below this p-value a difference is called one."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two sides' mean pass rates on the same tasks, and their difference (B less A)."""

    tasks: int
    a: float
    b: float
    difference: float
    low: float
    """Ends of the 95 % interval of the difference."""
    high: float
    gained: int
    """Tasks whose pass rate is higher in B."""
    lost: int
    test: str
    p_value: float
    exact: bool
    """Whether the p-value was counted out; else it is estimated from random draws with a fixed seed."""

    @property
    def differs(self) -> bool:
        """Whether the test finds evidence of a difference."""
        return self.p_value < LEVEL

    def as_json(self) -> dict[str, Any]:
        """Everything, and the conclusion."""
        return asdict(self) | {"differs": self.differs, "level": LEVEL}


def paired(a: Sequence[Fraction], b: Sequence[Fraction]) -> Paired:
    """Compare two sides task by task (Miller 2024, arXiv 2411.00640: the variance that tasks share cancels).

    Args:
        a: pass rate of each task on one side, in [0, 1].
        b: of the same tasks, in the same order, on the other.

    Returns:
        The means, their difference with its interval, and McNemar's exact test where every task is all or
        nothing, else the sign-flip test.
    """
    differences = [there - here for here, there in zip(a, b, strict=True)]
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    low, high = difference_interval([float(d) for d in differences])
    if all(rate in (0, 1) for rate in (*a, *b)):
        test, p_value, exact = "McNemar's exact test", mcnemar(gained, lost), True
    else:
        test = "paired sign-flip test"
        p_value, exact = sign_flip(differences)
    mean_a, mean_b, mean = (float(sum(part, Fraction()) / len(part)) for part in (a, b, differences))
    return Paired(len(differences), mean_a, mean_b, mean, low, high, gained, lost, test, p_value, exact)


def difference_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean of differences in [-1, 1]: the percentiles of resampled tasks.

    Pairs are drawn whole (Koehn 2004, "Statistical significance tests for machine translation evaluation").
    Where all tasks have the same difference, resampling would call it certain. There the share of tasks that
    have another one is below the upper end of Wilson's interval for none of n, and these are taken at their worst.
    """
    first = differences[0]
    if any(difference != first for difference in differences):
        return bootstrap(differences)
    unseen = wilson(0, len(differences))[1]
    return first - unseen * (first + 1), first + unseen * (1 - first)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's test (1947), exact: tasks that changed, as tosses of a fair coin.

    Args:
        gained: tasks that only B solves.
        lost: tasks that only A solves.
    """
    changed = gained + lost
    tail = ways = 1
    for count in range(min(gained, lost)):
        ways = ways * (changed - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**changed)


def sign_flip(differences: Sequence[Fraction], *, seed: int = 0) -> tuple[float, bool]:
    """Two-sided p-value that the mean difference is zero (Fisher 1935, "The Design of Experiments", section 21).

    Without a difference between the sides each task's would be as likely with the other sign. The share of all
    2^n ways to give signs whose sum is at least as far from zero is counted; where that takes too long, signs
    are drawn, and the ways seen are counted with the one at hand (Phipson and Smyth 2010), so p is never zero.

    Args:
        differences: of each task.
        seed: of the drawn signs.

    Returns:
        The p-value, and whether it is exact.
    """
    moved = [difference for difference in differences if difference]
    if not moved:
        return 1.0, True
    scale = lcm(*(difference.denominator for difference in moved))
    whole = [int(difference * scale) for difference in moved]
    shared = gcd(*whole)
    sizes = [abs(number) // shared for number in whole]
    observed, total = abs(sum(whole)) // shared, sum(sizes)
    if len(sizes) * total > MOST_STEPS:
        return _drawn(sizes, observed, seed), False
    # The sum of signed sizes is 2 * (sum of those with a plus) - total; both tails hold the same number of ways.
    least = (observed + total) // 2
    ways = _subset_sums(sizes)
    return min(1.0, 2 * sum(ways[least:]) / 2 ** len(sizes)) if observed else 1.0, True


def _subset_sums(sizes: Sequence[int]) -> list[int]:
    """How many subsets have each sum."""
    ways = [1] + [0] * sum(sizes)
    reached = 0
    for size in sizes:
        reached += size
        for place in range(reached, size - 1, -1):
            ways[place] += ways[place - size]
    return ways


def _drawn(sizes: Sequence[int], observed: int, seed: int) -> float:
    chance = random.Random(seed)
    total, as_far = sum(sizes), 0
    for _ in range(DRAWS):
        positive = sum(compress(sizes, map((1).__and__, chance.randbytes(len(sizes)))))
        as_far += abs(2 * positive - total) >= observed
    return (as_far + 1) / (DRAWS + 1)
