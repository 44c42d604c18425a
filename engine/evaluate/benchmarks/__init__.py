"""Benchmarks: tasks with hidden tests, all behind the same four functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

from engine.errors import WishError
from engine.evaluate.benchmarks import (
    apps,
    basics,
    bigcodebench,
    codecontests,
    cruxeval,
    custom,
    ds1000,
    humaneval,
    humaneval_plus,
    infilling,
    livecodebench,
    mbpp,
    mbpp_plus,
    multipl_e,
)
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program


class Benchmark(Protocol):
    """What a benchmark module offers."""

    def load(self, source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
        """Its tasks, from a file or hub id where it is not built in."""

    def prompt(self, task: Task) -> str:
        """What a base model continues."""

    def program(self, task: Task, completion: str) -> Program:
        """What is run to judge a completion."""

    def judge(self, task: Task, program: Program) -> Steps:
        """The runs that decide, one after another, and the verdict they come to."""


BENCHMARKS: dict[str, Benchmark] = {
    "apps": apps,
    "basics": basics,
    "bigcodebench": bigcodebench,
    "codecontests": codecontests,
    "cruxeval": cruxeval,
    "custom": custom,
    "ds1000": ds1000,
    "humaneval": humaneval,
    "humaneval-plus": humaneval_plus,
    "infilling": infilling,
    "livecodebench": livecodebench,
    "mbpp": mbpp,
    "mbpp-plus": mbpp_plus,
    "multipl-e": multipl_e,
}

__all__ = ["BENCHMARKS", "Benchmark", "find", "fingerprint", "texts"]


def find(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        WishError: there is none.
    """
    if name not in BENCHMARKS:
        raise WishError(f"there is no benchmark {name!r}", f"choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def fingerprint(tasks: Sequence[Task]) -> str:
    """SHA-256 over all that decides a score: runs with the same one were asked and judged alike."""
    digest = hashlib.sha256()
    for task in tasks:
        calls = [[call.expression, repr(call.expected)] for call in task.calls]
        fields = [
            task.id,
            task.prompt,
            task.entry_point,
            task.test,
            calls,
            task.group,
            task.stop,
            task.suffix,
        ]
        if task.runs or task.language != "python":
            fields += [task.language, task.comparison, [[run.stdin, run.expected] for run in task.runs]]
        if task.context or task.cpu_seconds:
            fields += [task.context, str(task.cpu_seconds)]
        if task.checker or task.memory_mb or task.question:
            fields += [task.checker, str(task.memory_mb), task.question]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


def texts(
    name: str, source: str | None = None, *, splits: Sequence[str] = ("validation", "test")
) -> list[str]:
    """Texts of a benchmark's held-out tasks, prompt with reference, that training rows must not overlap."""
    benchmark = find(name)
    found: dict[str, None] = {}
    for split in splits:
        for task in benchmark.load(source, split=split):
            found[task.prompt + task.reference + task.suffix] = None
    return list(found)
