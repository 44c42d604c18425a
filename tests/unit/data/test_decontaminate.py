"""Decontamination: copies are found however they are laid out; look-alikes are not."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from engine.data.decontaminate import compare, refuse
from engine.errors import WishError

TASK = '''def running_total(values, limit=10):
    """Add the values one after another and stop before the total would be more than the limit.

    >>> running_total([4, 5, 6])
    9
    """
    total = 0
    for value in values:
        if total + value > limit:
            break
        total += value
    return total
'''


@pytest.mark.parametrize(
    "copy",
    [
        TASK,
        "Solve this:\n" + TASK.replace("    ", "\t") + "\nThanks!",
        TASK.upper(),
        "\n".join("# " + line for line in TASK.splitlines()),
        " ".join(TASK.split()),
        TASK.replace("limit", "bound", 1),
    ],
    ids=[
        "verbatim",
        "in a chat, with tabs",
        "in capitals",
        "commented out",
        "on one line",
        "one name changed",
    ],
)
def test_a_copy_is_found(copy: str) -> None:
    report = compare([("r:1", "x = 1"), ("r:2", copy)], {"t/1": TASK})
    assert [(o.row, o.task) for o in report.overlaps] == [("r:2", "t/1")]
    with pytest.raises(
        WishError, match=r"1 of 2 training rows overlap held-out tasks \(r:2 holds \d+% of t/1\)"
    ):
        refuse(report)


def test_a_relative_is_not_a_copy() -> None:
    relative = TASK.replace("running_total", "first_over").replace("total += value", "count = count * value")
    relative = relative.replace("one after another and stop before the total", "while no single one of them")
    other = "def largest(values):\n    best = values[0]\n    for value in values:\n        best = max(best, value)\n"
    report = compare(
        [("r:1", other), ("r:2", "for value in values:\n    total += value\nreturn total")], [TASK]
    )
    assert not report.overlaps and report.line.endswith("0 overlap")
    refuse(report)


def test_texts_too_short_to_mean_anything_are_left_out_and_short_ones_are_matched_whole() -> None:
    assert not compare([("r", "return x\n" * 9)], ["return x"]).overlaps
    short = "return sorted(set(a + b))"
    assert compare([("r", f"def f(a, b):\n    {short}\n")], [short]).overlaps
    assert not compare([("r", "def f(a, b):\n    return sorted(a + b)\n")], [short]).overlaps


def test_a_long_prompt_without_its_solution_is_found() -> None:
    folder = os.environ.get("TEMPER_DATA")
    file = Path(folder or ".", "humaneval", "HumanEval.jsonl.gz")
    if not folder or not file.is_file():
        pytest.skip("TEMPER_DATA names no folder with humaneval/HumanEval.jsonl.gz")
    with gzip.open(file, "rt") as lines:
        tasks = [json.loads(line) for line in lines]
    held = {task["task_id"]: task["prompt"] + task["canonical_solution"] for task in tasks}
    whole = compare([(task["task_id"], held[task["task_id"]]) for task in tasks], held)
    assert {o.row for o in whole.overlaps if o.row == o.task} == set(held)
    prompts = compare([(task["task_id"], task["prompt"]) for task in tasks], held)
    assert len({o.row for o in prompts.overlaps if o.row == o.task}) > 0.85 * len(held)
    # Different tasks of one benchmark are not copies of each other, a few near twins aside.
    assert sum(o.row != o.task for o in whole.overlaps) <= 6


def test_mbpp_holds_no_humaneval_task() -> None:
    folder = Path(os.environ.get("TEMPER_DATA") or ".")
    files = folder / "mbpp" / "mbpp.jsonl.gz", folder / "humaneval" / "HumanEval.jsonl.gz"
    if not all(file.is_file() for file in files):
        pytest.skip("TEMPER_DATA names no folder with mbpp and humaneval")
    with gzip.open(files[0], "rt") as mbpp, gzip.open(files[1], "rt") as humaneval:
        rows = [(str(r["task_id"]), r["text"] + "\n" + r["code"]) for r in map(json.loads, mbpp)]
        held = {r["task_id"]: r["prompt"] + r["canonical_solution"] for r in map(json.loads, humaneval)}
    assert not compare(rows, held).overlaps
