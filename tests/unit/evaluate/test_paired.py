"""Paired statistics against every sign and every table counted by brute force."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from math import sqrt

import pytest

from engine.evaluate.compare import paired as module
from engine.evaluate.compare.paired import Paired, difference_interval, mcnemar, paired, sign_flip
from engine.evaluate.passk import wilson


def by_hand(differences: list[Fraction]) -> Fraction:
    """The share of all signs that bring the sum as far from zero."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return Fraction(sum(total >= observed for total in sums), len(sums))


def rates(chance: random.Random, tasks: int, samples: int) -> list[Fraction]:
    return [Fraction(chance.randint(0, samples), samples) for _ in range(tasks)]


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (3, 5), (10, 4), (7, 6)])
def test_sign_flip_counts_every_way_to_give_signs(counts: tuple[int, int]) -> None:
    chance = random.Random(sum(counts))
    for tasks in (1, 2, 5, 9, 11):
        for _ in range(4):
            a, b = rates(chance, tasks, counts[0]), rates(chance, tasks, counts[1])
            differences = [there - here for here, there in zip(a, b, strict=True)]
            assert sign_flip(differences) == (pytest.approx(float(by_hand(differences)), abs=1e-15), True)


def test_mcnemar_counts_every_table_and_is_the_sign_flip_of_single_samples() -> None:
    for gained, lost in product(range(7), repeat=2):
        tosses = list(product((0, 1), repeat=gained + lost))
        far = sum(abs(2 * sum(toss) - len(toss)) >= abs(gained - lost) for toss in tosses)
        assert mcnemar(gained, lost) == pytest.approx(far / len(tosses), abs=1e-15)
        signs = [Fraction(1)] * gained + [Fraction(-1)] * lost + [Fraction(0)] * 5
        assert sign_flip(signs)[0] == pytest.approx(mcnemar(gained, lost), abs=1e-15)


def test_mcnemar_at_known_points() -> None:
    # 6 against 0 is the smallest one-sided change that 5 % calls a difference, 5 against 0 is not enough.
    assert (mcnemar(6, 0), mcnemar(5, 0), mcnemar(0, 0)) == (0.03125, 0.0625, 1.0)
    assert mcnemar(59, 1) == pytest.approx(2 * 61 / 2**60)


def test_drawn_signs_come_near_the_exact_value_and_are_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    a, b = rates(chance, 60, 8), rates(chance, 60, 8)
    differences = [there - here for here, there in zip(a, b, strict=True)]
    exact, counted = sign_flip(differences)
    monkeypatch.setattr(module, "MOST_STEPS", 0)
    drawn, told = sign_flip(differences, seed=1)
    assert counted and not told and 0.05 < exact < 0.95
    assert drawn == sign_flip(differences, seed=1)[0] != sign_flip(differences, seed=2)[0]
    assert drawn == pytest.approx(exact, abs=5 * sqrt(exact * (1 - exact) / module.DRAWS))
    assert sign_flip([Fraction(1, 2)] * 60)[0] == 1 / (module.DRAWS + 1), "never zero"


def test_which_test_is_chosen() -> None:
    half = Fraction(1, 2)
    single = paired([Fraction(0)] * 8 + [Fraction(1)] * 2, [Fraction(1)] * 10)
    assert (single.test, single.p_value, single.gained, single.lost) == (
        "McNemar's exact test",
        0.0078125,
        8,
        0,
    )
    assert single.differs and single.difference == 0.8
    several = paired([half, half, Fraction(1)], [Fraction(1), half, Fraction(0)])
    assert (several.test, several.p_value) == ("paired sign-flip test", 1.0)
    assert (several.gained, several.lost, several.differs) == (1, 1, False)
    assert several.difference == pytest.approx(-1 / 6)


def test_interval_agrees_with_the_normal_one_where_that_holds() -> None:
    chance = random.Random(9)
    a, b = rates(chance, 300, 10), rates(chance, 300, 10)
    differences = [float(there - here) for here, there in zip(a, b, strict=True)]
    mean = sum(differences) / 300
    half = 1.96 * sqrt(sum((d - mean) ** 2 for d in differences) / 299 / 300)
    low, high = difference_interval(differences)
    assert (low, high) == difference_interval(differences)
    assert low == pytest.approx(mean - half, abs=0.1 * half) and high == pytest.approx(
        mean + half, abs=0.1 * half
    )


def test_pairing_is_worth_it() -> None:
    """Two sides that agree in most tasks: apart, their intervals overlap; paired, the difference is clear."""
    a = [Fraction(n % 2) for n in range(200)]
    b = [Fraction(1) if n < 20 else rate for n, rate in enumerate(a)]
    found = paired(a, b)
    assert wilson(100, 200)[1] > wilson(110, 200)[0]
    assert found.low > 0 and found.differs


def test_tasks_that_all_agree_are_not_certain() -> None:
    same = paired([Fraction(1)] * 96, [Fraction(1)] * 96)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    assert same.high == -same.low == wilson(0, 96)[1] < 0.04
    gained = paired([Fraction(0)] * 10, [Fraction(1)] * 10)
    assert gained.low == pytest.approx(2 * wilson(10, 10)[0] - 1) and gained.high == 1.0
    one: Paired = paired([Fraction(0)], [Fraction(1, 3)])
    assert -1 <= one.low < 0 < one.high < 1
