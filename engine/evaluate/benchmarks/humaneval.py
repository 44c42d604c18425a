"""HumanEval (arXiv 2107.03374), from the hub or from any file in its format."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks.tasks import collect, demand_only_test, judge
from engine.evaluate.benchmarks.tasks import demand_fields as demand_row
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "openai/openai_humaneval"
# The Codex paper's stops, a decorator, and the fence that instruction-tuned models end code with.
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in HumanEval's format, or a hub id; None: the hub's original.
        split: of a hub dataset; HumanEval has only `test`, which is also what `validation` gives.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    demand_only_test(split, name="HumanEval")
    return collect(from_file_or_hub(source, HUB_ID), _task, limit=limit, source=source or HUB_ID)


def prompt(task: Task) -> str:
    """What a base model continues."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The program to judge: the prompt continued, its entry point, and the task's `check`.

    Some checks call helpers that the prompt defines, hence the context.
    """
    return Program(
        source=task.prompt + completion,
        entry_point=task.entry_point,
        test=task.test,
        context=_helpers(task.prompt),
    )


@lru_cache(maxsize=4096)
def _helpers(prompt: str) -> str:
    """The prompt as a module of its own; without a docstring its last function still lacks a body."""
    for source in (prompt, f"{prompt.rstrip()}\n    pass\n"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ast.parse(source)
            except (SyntaxError, ValueError):
                continue
        return source
    return ""


def demand_fields(row: Any, place: str, fields: tuple[str, ...] = FIELDS) -> None:
    """Raise WishError unless a row has these fields as texts, and a `check` in a `test` among them."""
    demand_row(row, place, dict.fromkeys(fields, str), of="HumanEval's format")
    if not row["entry_point"].isidentifier():
        raise WishError(
            f"{place}: entry_point {row['entry_point']!r} is no name", "name the function to test"
        )
    if "test" not in fields:
        return
    if "def check" not in row["test"]:
        raise WishError(f"{place}: `test` defines no check(candidate)", "give the task a check function")
    try:
        ast.parse(row["test"])
    except (SyntaxError, ValueError, RecursionError) as error:
        raise WishError(f"{place}: `test` is no Python ({error})", "mend the task's test") from None


def _task(row: Any, place: str) -> Task:
    if isinstance(row, dict) and "suffix" in row:
        raise WishError(
            f"{place}: the task has a `suffix`, so it asks for infilling, not for HumanEval's completion",
            "name the benchmark infilling, or give a file whose programs are prompt + completion",
        )
    demand_fields(row, place)
    return Task(
        id=row["task_id"],
        prompt=row["prompt"],
        entry_point=row["entry_point"],
        reference=row["canonical_solution"],
        test=row["test"],
        stop=STOP,
    )
