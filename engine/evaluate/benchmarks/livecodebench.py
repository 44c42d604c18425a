"""LiveCodeBench (arXiv 2403.07974): dated problems of contests; those after a model's training can be chosen."""

from __future__ import annotations

import base64
import json
import pickletools
import re
import zlib
from functools import partial
from typing import Any

from engine.errors import WishError
from engine.evaluate.benchmarks import contest, stdio
from engine.evaluate.benchmarks.contest import program, prompt
from engine.evaluate.benchmarks.tasks import collect, demand_fields
from engine.evaluate.rows import from_file_or_hub
from engine.evaluate.task import Run, Task

__all__ = ["judge", "load", "program", "prompt"]

HUB_ID = "livecodebench/code_generation_lite"
FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")
"""Each release adds one."""
FIELDS = dict.fromkeys(
    (
        *("question_id", "question_content", "starter_code", "public_test_cases", "private_test_cases"),
        *("metadata", "difficulty", "platform"),
    ),
    str,
)
CPU_SECONDS = 6.0
"""For each test, as LiveCodeBench's own judge has it."""
MOST_BYTES = 1 << 30
"""Of the private tests of one task, unpacked."""
_DAY = r"\d{4}-(?:0[1-9]|1[0-2])(?:-[0-3]\d)?"
_WINDOW = re.compile(rf"({_DAY})?\.\.({_DAY})?")
_TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_AROUND = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP")

judge = partial(contest.judge, contest.Rules(tuples=1))


def load(source: str | None, *, split: str = "test", limit: int | None = None) -> list[Task]:
    """Read the tasks; their groups are level and site, as in `easy/atcoder`.

    Args:
        source: a JSONL file, gzipped or not, in the format of livecodebench/code_generation_lite, or a hub id; None:
            all files of that one.
        split: `test` for all tasks (and `validation`, as there is no other), or a window of contest dates, both ends
            in it: `2024-08..2025-01`, `2024-08-15..`, `..2024-07`.
        limit: first this many tasks only.

    Raises:
        WishError: no such file, dataset or window, or a row that is not a task (file and line are named).
    """
    window = _WINDOW.fullmatch(split)
    if split not in ("test", "validation") and not (window and any(window.groups())):
        raise WishError(
            f"LiveCodeBench has no split {split!r}", "choose test, or a window such as 2024-08..2025-01"
        )
    first, last = window.groups(default="") if window else ("", "")
    rows = from_file_or_hub(source, HUB_ID, files=FILES)
    of = f"{split} of {source or HUB_ID}" if window else source or HUB_ID
    return collect(rows, partial(_task, first=first, last=last), limit=limit, source=of)


def _task(row: Any, place: str, *, first: str, last: str) -> Task | None:
    demand_fields(row, place, FIELDS, of="LiveCodeBench's format")
    day = str(row.get("contest_date") or "")[:10]
    if (first or last) and not re.fullmatch(_DAY, day):
        raise WishError(f"{place}: contest_date is {row.get('contest_date')!r}", "give it as 2024-08-15")
    if not first <= day or not day[: len(last)] <= last:  # of days and of months alike, as texts sort by time
        return None
    try:
        name, runs = _runs(row)
    except (ValueError, TypeError, KeyError, RecursionError, zlib.error) as error:
        raise WishError(
            f"{place}: the tests cannot be read ({type(error).__name__}: {error})", "mend or remove the line"
        ) from None
    last = contest.starting(row["starter_code"], name) if name else contest.READ_AND_PRINT
    return Task(
        id=row["question_id"],
        prompt=contest.prompt_of(row["question_content"], last),
        entry_point=name,
        reference="",
        group=f"{row['difficulty']}/{row['platform']}",
        stop=contest.STOP,
        runs=runs,
        comparison="decimals",
        cpu_seconds=CPU_SECONDS,
        output_kb=stdio.room(runs),
    )


def _runs(row: dict[str, Any]) -> tuple[str, tuple[Run, ...]]:
    """The function to call, empty for a script, and the runs. Raises ValueError, TypeError, KeyError or zlib.error."""
    name = json.loads(row["metadata"] or "{}").get("func_name") or ""
    if name and not name.isidentifier():
        raise ValueError(f"func_name {name!r} is no name")
    tests = [*json.loads(row["public_test_cases"]), *json.loads(_unpacked(row["private_test_cases"]))]
    if not tests:
        raise ValueError("there is no test")
    if any((test["testtype"] == "functional") != bool(name) for test in tests):
        raise ValueError("a test's testtype and metadata's func_name do not agree")
    if not name:
        return "", tuple(Run(test["input"], test["output"]) for test in tests)
    runs = tuple(Run(_arguments(test["input"]), test["output"]) for test in tests)
    for run in runs:
        contest.read_json(run.expected)
    return name, runs


def _arguments(lines: str) -> str:
    """A line of JSON for each argument, as one JSON list."""
    return contest.write_json([contest.read_json(line) for line in lines.split("\n")])


def _unpacked(packed: str) -> str:
    """Private tests as JSON: as they are, or packed as base64 of zlib of a pickled text.

    A pickle can run anything, so it is not loaded: its opcodes are read, and only those of one text are taken.
    """
    if packed.lstrip().startswith("["):
        return packed
    unzip = zlib.decompressobj()
    pickled = unzip.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
    if unzip.unconsumed_tail:
        raise ValueError(f"private tests of more than {MOST_BYTES:,} bytes")
    texts: list[object] = []
    for step, argument, _ in pickletools.genops(pickled):
        if step.name in _TEXT and not texts:
            texts.append(argument)
        elif step.name not in _AROUND:
            raise ValueError("the private tests' pickle is not one text")
    if not texts:
        raise ValueError("the private tests' pickle holds no text")
    return str(texts[0])
