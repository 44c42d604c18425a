"""Worked examples that are put before a task: a benchmark's own, or those of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Any

from engine.config import Evaluate
from engine.errors import WishError
from engine.evaluate.benchmarks import basics, find, mbpp
from engine.evaluate.rows import from_file
from engine.evaluate.task import Task

PAPERS = ("MBPP/2", "MBPP/3", "MBPP/4")
"""The three that MBPP's paper shows (arXiv 2108.07732, section 4.1); the rest of its `prompt` split comes after."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One example: `prompt + completion` is a program."""

    prompt: str
    completion: str
    language: str = "python"

    @property
    def code(self) -> str:
        """The program, ending in one line end."""
        return (self.prompt + self.completion).rstrip() + "\n"


def shots(wish: Evaluate, tasks: Sequence[Task]) -> tuple[Shot, ...]:
    """The examples that an evaluation of these tasks asks for, the same ones on every rank.

    Raises:
        WishError: fewer are there, one of them is a task, or the tasks are in several languages.
    """
    if not wish.shots:
        return ()
    languages = sorted({task.language for task in tasks})
    if len(languages) > 1:
        raise WishError(
            f"evaluate.shots is {wish.shots} and the tasks are in {', '.join(languages)}",
            "evaluate one language at a time: examples are in one",
        )
    source = wish.shots_data or f"the examples of {wish.benchmark}"
    rows = _of_file(wish.shots_data) if wish.shots_data else OWN[str(wish.benchmark)](wish.data, wish.shots)
    found = tuple(Shot(prompt, completion, languages[0]) for prompt, completion in islice(rows, wish.shots))
    if len(found) < wish.shots:
        raise WishError(
            f"evaluate.shots is {wish.shots} and {source} has {len(found)}",
            f"set evaluate.shots to {len(found)} or less, or name more examples in evaluate.shots_data",
        )
    _demand_none_is_asked(found, wish, tasks, source)
    return found


def fingerprint(found: Sequence[Shot]) -> str:
    """SHA-256 of the examples, for the settings: equal ones were shown in equal order. Empty without any."""
    return hashlib.sha256(json.dumps([astuple(shot) for shot in found]).encode()).hexdigest() if found else ""


def _demand_none_is_asked(found: Sequence[Shot], wish: Evaluate, tasks: Sequence[Task], source: str) -> None:
    """An example that is a task would show its answer."""
    benchmark = find(str(wish.benchmark))
    asked = {benchmark.prompt(task).strip(): task.id for task in tasks}
    for number, shot in enumerate(found, start=1):
        if shot.prompt.strip() in asked:
            raise WishError(
                f"example {number} of {source} is the task {asked[shot.prompt.strip()]}",
                "take examples that are not asked",
            )


def _of_basics(source: str | None, count: int) -> Iterator[tuple[str, str]]:
    """Training rows, which overlap no task."""
    return ((row["prompt"], row["completion"]) for row in basics.training_rows(count))


def _of_mbpp(source: str | None, count: int) -> Iterator[tuple[str, str]]:
    """The paper's `prompt` split."""
    tasks = sorted(mbpp.load(source, split="prompt"), key=lambda task: task.id not in PAPERS)
    return ((mbpp.prompt(task), task.reference) for task in tasks)


OWN: dict[str, Callable[[str | None, int], Iterator[tuple[str, str]]]] = {
    "basics": _of_basics,
    "mbpp": _of_mbpp,
}


def _of_file(source: str) -> Iterator[tuple[str, str]]:
    for place, row in from_file(source):
        yield _text(row, "prompt", place), _text(row, "completion", place)


def _text(row: Any, name: str, place: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(name), str) or not row[name].strip():
        raise WishError(
            f"{place}: an example without a text as its {name}", "give every line prompt and completion"
        )
    text: str = row[name]
    return text
