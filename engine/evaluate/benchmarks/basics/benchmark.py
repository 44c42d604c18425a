"""The doors of `basics`: training rows, held-out tasks and how a completion becomes a program."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TypedDict

from engine.errors import WishError
from engine.evaluate.benchmarks.basics.compose import FORMS, OPERATIONS, Problem, choose_form, draw
from engine.evaluate.benchmarks.basics.operation import Split
from engine.evaluate.benchmarks.basics.overlap import HeldOut
from engine.evaluate.benchmarks.basics.slips import answer, passes, slips
from engine.evaluate.benchmarks.basics.split import Place, place
from engine.evaluate.task import Task
from engine.sandbox import Call, Program

STOP = (
    "\ndef ",
    "\nclass ",
    "\n#",
    "\nprint",
    "\nassert ",
    "\nif ",
    "\nimport ",
    "\nfrom ",
    "\n@",
    '\n"""',
    "\n\n\n",
)
"""Where a completion ends for sure; `program` also cuts at the first line that is not indented."""

GROUPS: dict[Split, dict[tuple[str, int], int]] = {
    "test": {
        ("compositions", 2): 36,
        ("compositions", 3): 28,
        ("families", 1): 11,
        ("families", 2): 8,
        ("families", 3): 8,
        ("seen", 1): 10,
    },
    "validation": {
        ("compositions", 2): 18,
        ("compositions", 3): 14,
        ("families", 1): 5,
        ("families", 2): 4,
        ("families", 3): 3,
        ("seen", 1): 6,
    },
}
"""How many tasks of each group a split has."""

CALLS = 12
PATIENCE = 50_000
"""Draws after which a group counts as exhausted."""

LEVEL_WEIGHTS = (25, 40, 35)
"""Shares of levels 1, 2 and 3 in the training rows: a composition shows two or three operations at once."""


class Row(TypedDict):
    """One training row; `completion` ends with a newline, the trainer adds the end-of-text token."""

    id: str
    prompt: str
    completion: str
    family: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalog: an operation, where it occurs and which split owns it."""

    name: str
    level: int
    phrase: str
    code: str
    split: Split


def training_rows(count: int, seed: int = 0) -> Iterator[Row]:
    """Deterministic rows; the first n rows are the same for any count. None overlaps a task that `load` gives."""
    rng = random.Random(f"basics/train/{seed}")
    for number in range(count):
        level = rng.choices((1, 2, 3), LEVEL_WEIGHTS)[0]
        problem = _draw_training(rng, level)
        yield Row(
            id=f"basics-train-{seed}:{number}",
            prompt=problem.prompt,
            completion=problem.completion,
            family=problem.family,
        )


def tasks(split: str = "test", seed: int = 0, limit: int | None = None) -> list[Task]:
    """The held-out tasks of "validation" or "test", groups mixed, so that a limit keeps a fair sample.

    Raises:
        WishError: no such split.
    """
    if split not in GROUPS:
        raise WishError(f"basics has no split {split!r}", f"use one of {', '.join(GROUPS)}")
    return list(_held_out(split, seed)[:limit])


def load(source: str | None = None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """The benchmark's common door; `basics` is generated, so it takes no source."""
    if source is not None:
        raise WishError(
            f"the benchmark basics takes no source, got {source!r}", "leave the source out: it is built in"
        )
    return tasks(split, limit=limit)


def prompt(task: Task) -> str:
    """The text a completion continues."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The whole program: the prompt and the completion up to its first line that is not indented.

    An answer that writes the whole function anew, as chat models do, stays whole.
    """
    again = re.search(rf"^(?:def|class) {re.escape(task.entry_point)}\b", completion, re.MULTILINE)
    if again:
        return Program(source=task.prompt + completion, entry_point=task.entry_point, calls=task.calls)
    kept: list[str] = []
    for line in completion.split("\n"):
        if line and not line[0].isspace():
            break
        kept.append(line)
    return Program(source=task.prompt + "\n".join(kept), entry_point=task.entry_point, calls=task.calls)


def catalog() -> list[Entry]:
    """Every family with its level and the split that owns it."""
    parts = [(option, 3) for form in FORMS for options in form.slots.values() for option in options]
    return [
        Entry(operation.name, level, operation.phrases[0], operation.code, operation.split)
        for operation, level in dict.fromkeys([(operation, 1) for operation in OPERATIONS] + parts)
    ]


@cache
def _held_out(split: Split, seed: int) -> tuple[Task, ...]:
    rng = random.Random(f"basics/{split}/{seed}")
    found = [
        task
        for (kind, level), count in GROUPS[split].items()
        for task in islice(_distinct(rng, split, kind, level, f"{split}-{seed}"), count)
    ]
    rng.shuffle(found)
    return tuple(found)


@cache
def _forbidden() -> HeldOut:
    return HeldOut(task.prompt + task.reference for split in GROUPS for task in tasks(split))


def _distinct(rng: random.Random, split: Split, kind: str, level: int, name: str) -> Iterator[Task]:
    """Tasks of one group, each of a family of its own."""
    families: set[str] = set()
    for _ in range(PATIENCE):
        problem = draw(rng, level)
        if problem.family in families or place(problem) != Place(split, kind):
            continue
        task = _task(problem, f"{kind}/level{level}", rng, name)
        if task is not None:
            families.add(problem.family)
            yield task
    raise RuntimeError(f"{PATIENCE} draws gave only {len(families)} tasks of {kind}/level{level} in {split}")


def _draw_training(rng: random.Random, level: int) -> Problem:
    """Draw until a problem is training's; its form is chosen once, or rows would drift to the easy forms."""
    forms = [choose_form(rng)]
    while True:
        problem = draw(rng, level, forms=forms)
        home = place(problem)
        if home and home.split == "train" and not _forbidden().near(problem.prompt + problem.completion):
            return problem


def _task(problem: Problem, group: str, rng: random.Random, name: str) -> Task | None:
    """The problem with hidden tests, or None where they would let a slightly wrong program pass."""
    entry = problem.entry_point
    expressions = list(dict.fromkeys(problem.call(rng, entry, number) for number in range(CALLS)))
    source = problem.prompt + problem.completion
    expected = [answer(source, expression) for expression in expressions]
    if any(passes(problem.prompt + wrong, expressions, expected) for wrong in slips(problem)):
        return None
    return Task(
        id=f"basics-{name}:{problem.family}",
        prompt=problem.prompt,
        entry_point=entry,
        reference=problem.completion,
        calls=tuple(Call(*pair) for pair in zip(expressions, expected, strict=True)),
        group=group,
        stop=STOP,
    )
