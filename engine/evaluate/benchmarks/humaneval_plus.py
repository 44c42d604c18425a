"""HumanEval+ (arXiv 2305.01210) in its native format: many more inputs, answered by the reference solution."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import oracle
from engine.evaluate.benchmarks.humaneval import STOP, demand_fields, prompt
from engine.evaluate.benchmarks.humaneval import program as continued
from engine.evaluate.benchmarks.tasks import collect, judge, tasks_file
from engine.evaluate.rows import from_file
from engine.evaluate.task import Task
from engine.sandbox import Program

__all__ = ["judge", "load", "program", "prompt"]

SPLITS = {
    "test": ("base_input", "plus_input"),
    "validation": ("base_input", "plus_input"),
    "base": ("base_input",),
}
CPU_SECONDS = 20.0
"""The reference itself takes up to some seconds over all inputs of a task."""

ROOT_OF = "find_zero"
"""Its answers are many, so they are put into the polynomial instead of being compared: that is EvalPlus's rule too."""


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks.

    Args:
        source: a JSONL file, gzipped or not, in EvalPlus's native format (with base_input and plus_input).
        split: `test` (or `validation`): HumanEval's inputs and the new ones; `base`: HumanEval's alone.
        limit: first this many tasks only.

    Raises:
        WishError: no such file or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"HumanEval+ has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    where = "give HumanEvalPlus.jsonl.gz of an EvalPlus release: the hub's copy lacks its inputs"
    source = tasks_file(source, name="humaneval-plus", where=where)
    return collect(from_file(source), partial(_task, parts=SPLITS[split]), limit=limit, source=source)


def program(task: Task, completion: str) -> Program:
    """The prompt continued, and a check of all inputs against what the reference gives for them."""
    return oracle.answered(continued(task, completion), task)


def _task(row: Any, place: str, parts: tuple[str, ...]) -> Task:
    demand_fields(row, place, ("task_id", "prompt", "entry_point", "canonical_solution"))
    missing = [name for name in ("base_input", "plus_input") if not isinstance(row.get(name), list)]
    if missing:
        raise WishError(
            f"{place}: not a task in EvalPlus's native format, {', '.join(missing)} missing or not a list",
            "give the file HumanEvalPlus.jsonl of an EvalPlus release",
        )
    inputs = [(part.removesuffix("_input"), arguments) for part in parts for arguments in row[part]]
    tolerance = float(row.get("atol") or 0.0)
    name = row["entry_point"]
    rule = f"abs(poly(arguments[0], got)) <= {tolerance!r}" if name == ROOT_OF else ""
    return Task(
        id=row["task_id"],
        prompt=row["prompt"],
        entry_point=name,
        reference=row["canonical_solution"],
        test=oracle.check(inputs, row["canonical_solution"], tolerance=tolerance, rule=rule),
        stop=STOP,
        cpu_seconds=CPU_SECONDS,
    )
