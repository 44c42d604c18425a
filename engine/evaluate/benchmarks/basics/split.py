"""Who may see what: a stable hash of the combination decides, never the constants of a composition."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations

from engine.evaluate.benchmarks.basics.compose import Problem
from engine.evaluate.benchmarks.basics.operation import Split

SALT = "basics/32"
"""Chosen among sixty so that no operation loses most of its combinations to the held-out splits."""

TEST_PERCENT = 6
VALIDATION_PERCENT = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A problem's split and the kind of novelty it stands for: "compositions", "families" or "seen"."""

    split: Split
    kind: str


def place(problem: Problem) -> Place | None:
    """Where a problem belongs; None where it would blur two splits.

    Families: an operation that training never shows. Compositions: operations whose combination training never
    shows, in any order. Seen: one known operation with a constant that training
    never shows alone. The rest is training's.
    """
    homes = {step.operation.split for step in problem.steps} - {"train"}
    if homes:
        return Place(homes.pop(), "families") if len(homes) == 1 else None
    if len(problem.steps) == 1:
        constant = problem.steps[0].constant
        return Place("train" if constant is None else bucket(f"{problem.family}={constant}"), "seen")
    return Place(combination_split(problem), "compositions")


def combination_split(problem: Problem) -> Split:
    """The split of a combination.

    A chain is held out as soon as one run of neighbours in it, in any order, is held out: a pair of operations that
    a test asks for never meets in training. A form is held out as a whole: its places have a handful of values each,
    and without their pairs training would not say what each place means.
    """
    operations = problem.operations
    if problem.level == 3:
        return bucket("+".join(sorted(operations)))
    found = {
        bucket("+".join(sorted(operations[start:stop])))
        for start, stop in combinations(range(len(operations) + 1), 2)
        if stop - start > 1
    }
    if "test" in found:
        return "test"
    return "validation" if "validation" in found else "train"


def bucket(key: str) -> Split:
    """A split by hash, the same on every machine and for every hash seed."""
    number = int.from_bytes(hashlib.sha256(f"{SALT}/{key}".encode()).digest()[:8]) % 100
    if number < TEST_PERCENT:
        return "test"
    return "validation" if number < TEST_PERCENT + VALIDATION_PERCENT else "train"
