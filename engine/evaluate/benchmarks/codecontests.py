"""CodeContests (arXiv 2203.07814): problems of programming contests, answered by scripts."""

from __future__ import annotations

from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import contest, stdio
from engine.evaluate.benchmarks.contest import program, prompt
from engine.evaluate.benchmarks.stdio import judge
from engine.evaluate.benchmarks.tasks import collect, demand_fields
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Run, Task

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "deepmind/code_contests"
SPLITS = {"test": "test", "validation": "valid", "train": "train"}
"""The hub's names of the splits."""
TESTS = ("public_tests", "private_tests", "generated_tests")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "description": str,
    **dict.fromkeys((*TESTS, "solutions"), (dict, list)),
}
SOURCES = ("unknown", "codechef", "codeforces", "hackerearth", "codejam", "", "atcoder", "aizu")
"""Where a problem is from, by its number."""
PYTHON3 = (3, "PYTHON3")


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are the sites they are from.

    Args:
        source: a JSONL file, gzipped or not, in the format of deepmind/code_contests, or a hub id; None: that one.
        split: of a hub id: `test` (165 tasks), `validation` (117) or `train`; a file is one split as it is.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or split, or a row that is not a task (file and line are named).
    """
    if split not in SPLITS:
        raise WishError(f"CodeContests has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    rows = from_file_or_hub(source, HUB_ID, split=SPLITS[split])
    return collect(rows, _task, limit=limit, source=source or HUB_ID)


def _task(row: Any, place: str) -> Task | None:
    demand_fields(row, place, FIELDS, of="CodeContests' format")
    if row.get("input_file") or row.get("output_file"):
        return None  # it does not use stdin and stdout
    try:
        runs = tuple(Run(*pair) for name in TESTS for pair in _pairs(row[name], "input", "output"))
        solutions = _pairs(row["solutions"], "language", "solution")
        seconds, memory = _seconds(row.get("time_limit")), int(row.get("memory_limit_bytes") or 0)
        site = SOURCES[int(row.get("source") or 0)]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise WishError(
            f"{place}: not a task in CodeContests' format ({type(error).__name__}: {error})",
            "give the rows as the hub has them, with numbers for source and language",
        ) from None
    if not runs:
        raise WishError(f"{place}: the task {row['name']!r} has no test", "remove the line")
    return Task(
        id=f"{site}/{row['name']}",
        prompt=contest.prompt_of(row["description"], contest.READ_AND_PRINT),
        entry_point="",
        reference=contest.first_that_parses(text for language, text in solutions if language in PYTHON3),
        group=site,
        stop=contest.STOP,
        runs=runs,
        comparison="caseless",
        cpu_seconds=seconds,
        memory_mb=memory >> 20,
        output_kb=stdio.room(runs),
    )


def _pairs(column: Any, first: str, second: str) -> list[tuple[Any, Any]]:
    """A column of records: a dict of lists, as the hub's rows have it, or a list of dicts."""
    if isinstance(column, dict):
        return list(zip(column[first], column[second], strict=True))
    return [(entry[first], entry[second]) for entry in column]


def _seconds(limit: Any) -> float:
    """CPU seconds of a time limit of seconds and nanos; 0 where a problem has none."""
    return (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9 if limit else 0.0
