"""HumanEval infilling (arXiv 2207.14255): the middle of a program, from a file in its format."""

from __future__ import annotations

from typing import Any

from engine.evaluate.benchmarks.humaneval import FIELDS, demand_fields
from engine.evaluate.benchmarks.tasks import collect, demand_only_test, judge, tasks_file
from engine.evaluate.rows import from_file
from engine.evaluate.task import Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are the kinds that one file may mix (`SingleLineInfilling`, ...).

    Args:
        source: a JSONL file, gzipped or not: HumanEval's fields, and the `suffix` after the hole.
        split: `test`, which is also what `validation` gives: there is no other.
        limit: first this many tasks only.

    Raises:
        WishError: no file, or a row that is not a task (file and line are named).
    """
    where = "give one of github.com/openai/human-eval-infilling"
    demand_only_test(split, name="infilling")
    source = tasks_file(source, name="infilling", where=where)
    return collect(from_file(source), _task, limit=limit, source=source)


def prompt(task: Task) -> str:
    """What stands before the hole; what stands after it is `task.suffix`."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The program with its hole filled; the reference's helpers serve the checks that call them."""
    return Program(
        source=task.prompt + completion + task.suffix,
        entry_point=task.entry_point,
        test=task.test,
        context=task.prompt + task.reference + task.suffix,
    )


def _task(row: Any, place: str) -> Task:
    demand_fields(row, place, (*FIELDS, "suffix"))
    return Task(
        id=row["task_id"],
        prompt=row["prompt"],
        entry_point=row["entry_point"],
        reference=row["canonical_solution"],
        test=row["test"],
        group=row["task_id"].partition("/")[0],
        suffix=row["suffix"],
    )
