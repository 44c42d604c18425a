"""Samples that exist already, in the field's format: a JSON object a line.

`task_id` comes with `completion` (which continues the prompt) or with `solution` (a whole program).
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import Benchmark
from engine.evaluate.rows import from_file
from engine.evaluate.task import Task
from engine.sandbox import Program


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a samples file; `sample` counts the lines of its task from 0."""

    task: Task
    sample: int
    text: str
    whole: bool
    """Whether `text` is a whole program rather than a continuation of the prompt."""


def read_samples(source: str, tasks: Mapping[str, Task]) -> list[Sample]:
    """Read a samples file as a whole, so that a bad line stops it before any program has run."""
    seen: Counter[str] = Counter()
    found = []
    for place, row in from_file(source):
        task, text, whole = _sample(row, place, tasks)
        found.append(Sample(task, seen[task.id], text, whole))
        seen[task.id] += 1
    if not found:
        raise WishError(
            f"{source} holds no sample", "give one JSON object a line: task_id with completion or solution"
        )
    return found


def _sample(row: Any, place: str, tasks: Mapping[str, Task]) -> tuple[Task, str, bool]:
    fix = (
        "give every line a task_id and a completion (it continues the prompt) or a solution (a whole program)"
    )
    if not isinstance(row, dict):
        raise WishError(f"{place}: a {type(row).__name__}, not a JSON object", fix)
    name = row.get("task_id")
    if not isinstance(name, str):
        example = next(iter(tasks), "")
        raise WishError(f"{place}: task_id is {json.dumps(name)}, not a text such as {example!r}", fix)
    if name not in tasks:
        near = difflib.get_close_matches(name, tasks, n=1, cutoff=0.0)
        raise WishError(
            f"{place}: the benchmark has no task {name!r}",
            f"the nearest of its {len(tasks)} tasks is {near[0]!r}: write ids as `temper benchmark show` lists them, "
            "or give the data the samples were drawn for",
        )
    given = [field for field in ("completion", "solution") if field in row]
    if len(given) != 1:
        raise WishError(f"{place}: {' and '.join(given) or 'neither completion nor solution'} given", fix)
    if not isinstance(row[given[0]], str):
        raise WishError(f"{place}: {given[0]} is {json.dumps(row[given[0]])[:40]}, not a text", fix)
    return tasks[name], row[given[0]], given[0] == "solution"


def program_of(module: Benchmark, asked: Sequence[Sample], index: int) -> tuple[Task, Program]:
    """A sample's task, and what is run for it."""
    sample = asked[index]
    program = module.program(sample.task, "" if sample.whole else sample.text)
    return sample.task, replace(program, source=_opened(sample)) if sample.whole else program


def _opened(sample: Sample) -> str:
    """A whole program as its test goes on from it: some of MultiPL-E's tests begin with the brace that closes it."""
    text = sample.text.rstrip()
    if (
        sample.task.language != "python"
        and (sample.task.test or "").lstrip().startswith("}")
        and text[-1:] == "}"
    ):
        return text[:-1] + "\n"
    return sample.text
