"""BigCodeBench (arXiv 2406.15877): functions that call many libraries, judged by unit tests beside the program."""

from __future__ import annotations

import ast
from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.humaneval import STOP
from engine.evaluate.benchmarks.tasks import collect, demand_fields, judge, third_party
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "bigcode/bigcodebench"
VERSION = "v0.1.4"
"""The hub's name for a split is the version of the tasks."""
SPLITS = {"test": "complete", "validation": "complete", "complete": "complete", "instruct": "instruct"}
FIELDS = (
    *("task_id", "complete_prompt", "instruct_prompt", "canonical_solution"),
    *("test", "entry_point", "libs"),
)
CASES = "TestCases"
CPU_SECONDS = 30.0
"""Importing the libraries alone takes seconds, and some tests fit a model."""
MEMORY_MB = 4096

ONE_NAMESPACE = 'vars(__import__("sys").modules[__name__]).update(globals())'
"""The tests' names become the program's too, as if both stood in one file: that is how the benchmark is judged."""

QUESTION = """{request}

Answer with the whole code in one fenced block.
"""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in BigCodeBench's format, or a hub id; None: the hub's original.
        split: `complete` (also `test` and `validation`): go on from the docstring; `instruct`: asked in words.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"BigCodeBench has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    rows = from_file_or_hub(source, HUB_ID, split=VERSION)
    return collect(rows, partial(_task, kind=SPLITS[split]), limit=limit, source=source or HUB_ID)


def prompt(task: Task) -> str:
    """What a base model continues; in `instruct`, the request in words."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The prompt continued, or the whole answer to a request in words, and the unit tests beside it."""
    opening = "" if task.question else task.prompt
    return Program(opening + completion, test=task.test, together=True)


def _tests(node: ast.ClassDef) -> bool:
    """Whether a class is one that is run, and has something to run."""
    methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
    return any(ast.unparse(base).endswith("TestCase") for base in node.bases) and any(
        name.startswith("test") for name in methods
    )


def _task(row: Any, place: str, kind: str) -> Task:
    demand_fields(row, place, dict.fromkeys(FIELDS, str), of="BigCodeBench's format")
    solution = row["complete_prompt"] + row["canonical_solution"]
    try:
        named = ast.literal_eval(row["libs"])
        cases = [node for node in ast.parse(row["test"]).body if isinstance(node, ast.ClassDef)]
        used = third_party(solution, row["test"], named=named)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise WishError(f"{place}: its code cannot be read ({error})", "mend or remove the line") from None
    if not any(node.name == CASES and _tests(node) for node in cases):
        raise WishError(
            f"{place}: `test` defines no class {CASES} of unittest.TestCase with a test method",
            "give the task its unit tests",
        )
    instruct = kind == "instruct"
    return Task(
        id=row["task_id"],
        prompt=row["instruct_prompt"] if instruct else row["complete_prompt"],
        entry_point=row["entry_point"],
        reference=solution if instruct else row["canonical_solution"],
        test=f"{row['test']}\n\n{ONE_NAMESPACE}\n",
        group=kind,
        stop=() if instruct else STOP,
        cpu_seconds=CPU_SECONDS,
        memory_mb=MEMORY_MB,
        requires=used,
        question=QUESTION.format(request=row["instruct_prompt"].strip()) if instruct else "",
    )
