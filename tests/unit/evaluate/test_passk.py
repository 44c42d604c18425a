"""pass@k and pass^k against values worked out in whole fractions."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest

from engine.evaluate.passk import bootstrap, estimate, interval, pass_at_k, pass_hat_k, wilson

WORKED = [
    ((10, 3, 1), 0.3),
    ((10, 3, 2), 8 / 15),
    ((10, 3, 5), 11 / 12),
    ((10, 3, 8), 1.0),
    ((10, 0, 5), 0.0),
    ((5, 2, 2), 0.7),
    ((20, 1, 10), 0.5),
    ((100, 1, 10), 0.1),
    ((100, 1, 100), 1.0),
    ((200, 10, 1), 0.05),
    ((200, 10, 10), 0.408547866081417),
    ((200, 10, 100), 0.9992289739372821),
    ((200, 1, 100), 0.5),
    ((200, 199, 1), 0.995),
    ((1000, 3, 100), 0.271243387676254),
    ((10000, 7, 1000), 0.521814740652801),
]


@pytest.mark.parametrize(("drawn", "value"), WORKED)
def test_worked_values(drawn: tuple[int, int, int], value: float) -> None:
    assert pass_at_k(*drawn) == pytest.approx(value, abs=1e-14)


def test_is_the_float_nearest_to_the_exact_fraction() -> None:
    chance = random.Random(5)
    for _ in range(300):
        n = chance.randint(1, 400)
        c, k = chance.randint(0, n), chance.randint(1, n)
        assert pass_at_k(n, c, k) == float(1 - Fraction(comb(n - c, k), comb(n, k)))


def test_agrees_with_drawing_every_subset() -> None:
    from itertools import combinations

    outcomes = [True] * 3 + [False] * 7
    for k in range(1, 11):
        draws = list(combinations(outcomes, k))
        assert pass_at_k(10, 3, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


def test_is_not_the_biased_estimate() -> None:
    assert pass_at_k(10, 3, 2) != pytest.approx(1 - (1 - 0.3) ** 2)


def test_pass_hat_k_agrees_with_drawing_every_subset() -> None:
    from itertools import combinations

    for passed in range(8):
        outcomes = [True] * passed + [False] * (7 - passed)
        for k in range(1, 8):
            draws = list(combinations(outcomes, k))
            assert pass_hat_k(7, passed, k) == pytest.approx(sum(map(all, draws)) / len(draws), abs=1e-15)
            assert pass_hat_k(7, passed, k) == pytest.approx(1 - pass_at_k(7, 7 - passed, k))  # type: ignore[operator]


def test_pass_hat_k_of_tasks() -> None:
    assert pass_hat_k(10, 9, 5) == 0.5
    assert pass_hat_k(4, 4, 5) is None
    with pytest.raises(ValueError, match="undefined"):
        pass_hat_k(3, 4, 1)
    found = estimate([(10, 9), (10, 10), (10, 4)], 5, of_task=pass_hat_k)
    assert found.value == 0.5 and found.low is not None and found.low < 0.5 < (found.high or 0)
    assert estimate([(4, 4), (10, 9)], 5, of_task=pass_hat_k).value is None


def test_fewer_samples_than_k_is_undefined() -> None:
    assert pass_at_k(4, 4, 5) is None
    assert pass_at_k(0, 0, 1) is None


@pytest.mark.parametrize("drawn", [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(drawn: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(*drawn)


def test_one_short_task_makes_the_mean_undefined_and_says_so() -> None:
    found = estimate([(10, 3), (4, 2)], 5)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason == "1 of 2 tasks have fewer than 5 scored samples (one: 4)"
    assert estimate([(10, 3), (4, 2)], 4).value is not None


def test_mean_is_over_tasks_not_over_samples() -> None:
    assert estimate([(1, 1), (99, 0)], 1).value == 0.5


def test_wilson_at_known_points() -> None:
    # 81 of 263 is Newcombe's worked example (1998, method 3).
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert wilson(82, 164) == pytest.approx((0.42436, 0.57564), abs=5e-5)


def test_interval_of_all_or_nothing_tasks_is_wilson() -> None:
    assert interval([1.0] * 10) == wilson(10, 10)
    assert estimate([(1, 1)] * 3 + [(1, 0)] * 7, 1).low == wilson(3, 10)[0]


def test_tasks_that_agree_are_not_certain() -> None:
    low, high = interval([0.65])
    assert low < 0.2 and high > 0.9
    low, high = interval([0.5] * 20)
    assert (low, high) == wilson(10, 20)


def test_bootstrap_is_repeatable_and_of_the_right_width() -> None:
    chance = random.Random(1)
    values = [chance.random() for _ in range(164)]
    low, high = bootstrap(values, seed=3)
    assert (low, high) == bootstrap(values, seed=3)
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    expected = 1.96 * deviation / len(values) ** 0.5
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)
