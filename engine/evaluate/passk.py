"""pass@k and pass^k: the chance that one of k samples, or that each of them, passes; and how sure their means are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, fsum, sqrt

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over a set of tasks with its 95 % interval; None where it is undefined, and `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, float | str | None]:
        """The three numbers, and the reason where there are none."""
        numbers: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return numbers if self.reason is None else numbers | {"reason": self.reason}


@lru_cache(maxsize=65536)
def pass_at_k(n: int, c: int, k: int) -> float | None:
    """Unbiased estimate for one task (arXiv 2107.03374): 1 - C(n - c, k) / C(n, k).

    Computed in whole numbers and divided once, so the result is the float nearest to the exact value.

    Args:
        n: samples drawn.
        c: samples that passed.
        k: samples looked at.

    Returns:
        The estimate; None where n < k, since k samples were never seen.

    Raises:
        ValueError: c is not between 0 and n, or k is not positive.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@k is undefined for n={n}, c={c}, k={k}: need 0 <= c <= n and k >= 1")
    if n < k:
        return None
    all_draws = comb(n, k)
    return (all_draws - comb(n - c, k)) / all_draws


@lru_cache(maxsize=65536)
def pass_hat_k(n: int, c: int, k: int) -> float | None:
    """Unbiased estimate of pass^k, that all of k samples pass (tau-bench, arXiv 2406.12045): C(c, k) / C(n, k).

    Arguments, what is returned and what is raised are those of `pass_at_k`; pass^1 is pass@1.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass^k is undefined for n={n}, c={c}, k={k}: need 0 <= c <= n and k >= 1")
    return None if n < k else comb(c, k) / comb(n, k)


def wilson(passed: float, total: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927), which keeps its coverage near 0 and 1."""
    if total == 0:
        return 0.0, 1.0
    share = passed / total
    denominator = 1 + Z95**2 / total
    centre = (share + Z95**2 / (2 * total)) / denominator
    half = Z95 * sqrt(share * (1 - share) / total + Z95**2 / (4 * total**2)) / denominator
    # At the ends centre and half are equal on paper; rounding must not leave 0.9999999 as the end of 100 %.
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == total else min(1.0, centre + half)
    return low, high


def bootstrap(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, drawing whole tasks: samples of one task are not independent."""
    draw = random.Random(seed)
    size = len(values)
    means = sorted(sum(draw.choices(values, k=size)) / size for _ in range(RESAMPLES))
    cut = round(0.025 * RESAMPLES)
    return means[cut], means[RESAMPLES - 1 - cut]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of per-task estimates.

    Where every task is all or nothing (one sample a task, or k = n) the mean is a share and Wilson's interval
    fits; the bootstrap would call ten passed tasks of ten certain. The same where all tasks agree, or there is only
    one: a share's variance is the largest a mean of values in [0, 1] can have. Otherwise tasks are resampled.
    """
    if all(value in (0.0, 1.0) for value in values) or len(set(values)) == 1:
        return wilson(fsum(values), len(values))
    return bootstrap(values)


def estimate(
    counts: Sequence[tuple[int, int]],
    k: int,
    *,
    of_task: Callable[[int, int, int], float | None] = pass_at_k,
) -> Estimate:
    """Mean pass@k over tasks with its 95 % interval, or mean pass^k.

    Args:
        counts: (samples, passed) of each task.
        k: samples looked at.
        of_task: `pass_at_k` or `pass_hat_k`.

    Returns:
        The estimate; undefined as soon as one task has fewer than k samples: leaving that task out would be
        another benchmark.
    """
    if not counts:
        return Estimate(None, reason="there is no task")
    values: list[float] = []
    short: list[int] = []
    for n, c in counts:
        value = of_task(n, c, k)
        if value is None:
            short.append(n)
        else:
            values.append(value)
    if short:
        reason = f"{len(short)} of {len(counts)} tasks have fewer than {k} scored samples (one: {min(short)})"
        return Estimate(None, reason=reason)
    low, high = interval(values)
    return Estimate(fsum(values) / len(values), low, high)
