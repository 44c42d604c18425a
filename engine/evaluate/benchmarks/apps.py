"""APPS (arXiv 2105.09938): programming problems of three levels, answered by scripts or by functions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import contest, stdio
from engine.evaluate.benchmarks.contest import program, prompt
from engine.evaluate.benchmarks.tasks import collect, demand_fields
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Run, Task

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "codeparrot/apps"
FILES = {"test": "test.jsonl", "validation": "test.jsonl", "train": "train.jsonl"}
"""Of each split; `validation` is what loops ask for, and APPS has none."""
FIELDS = {"question": str, "solutions": str, "input_output": str, "difficulty": str, "starter_code": str}
CPU_SECONDS = 4.0
"""For each test, as APPS's own judge has it."""

judge = partial(contest.judge, contest.Rules(tuples=2, wrapped=True, integer_keys=True))


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are their levels.

    Args:
        source: a JSONL file, gzipped or not, in the format of codeparrot/apps, or a hub id; None: that one.
        split: of the hub id: `test` (5,000 tasks) or `train`; a file is one split as it is.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in FILES:
        raise WishError(f"APPS has no split {split!r}", "choose test or train")
    name = "train" if split == "train" else "test"
    rows = from_file_or_hub(source, HUB_ID, split=name, files=(FILES[split],))
    return collect(rows, _task, limit=limit, source=source or HUB_ID)


def _task(row: Any, place: str) -> Task | None:
    demand_fields(row, place, FIELDS, of="APPS's format")
    if not row["input_output"].strip():
        return None  # a few are published without tests: nothing can be said of an answer
    number = row.get("problem_id", row.get("id"))
    if isinstance(number, bool) or not isinstance(number, int):
        raise WishError(f"{place}: problem_id is {number!r}, not a number", "number every task")
    try:
        name, runs = _runs(contest.read_json(row["input_output"]))
        solutions = contest.read_json(row["solutions"]) if row["solutions"].strip() else []
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WishError(
            f"{place}: input_output or solutions cannot be read ({type(error).__name__}: {error})",
            "mend or remove the line",
        ) from None
    last = contest.starting(row["starter_code"], name) if name else contest.READ_AND_PRINT
    return Task(
        id=f"APPS/{number}",
        prompt=contest.prompt_of(row["question"], last),
        entry_point=name,
        reference=contest.first_that_parses(map(str, solutions)),
        group=row["difficulty"],
        stop=contest.STOP,
        runs=runs,
        comparison="floats",
        cpu_seconds=CPU_SECONDS,
        output_kb=stdio.room(runs),
    )


def _runs(tests: Mapping[str, Any]) -> tuple[str, tuple[Run, ...]]:
    """The function to call, empty for a script, and the runs. Raises ValueError, TypeError or KeyError."""
    name = tests.get("fn_name") or ""
    if name and not name.isidentifier():
        raise ValueError(f"fn_name {name!r} is no name")
    pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    if not pairs:
        raise ValueError("there is no test")
    if name:
        arguments = [given if isinstance(given, list) else [given] for given, _ in pairs]
        values = [wanted for _, wanted in pairs]
        return name, tuple(map(Run, map(contest.write_json, arguments), map(contest.write_json, values)))
    return "", tuple(Run(_text(given), _text(wanted)) for given, wanted in pairs)


def _text(lines: Any) -> str:
    """What a script reads or prints: some tests give it as a list of its lines."""
    return "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines)
