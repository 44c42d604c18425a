"""MBPP: its own references pass, nothing else does, and rows that are no task are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WishError
from engine.evaluate.benchmarks import mbpp, texts
from engine.sandbox import Limits, Pool

LIMITS = Limits(cpu_seconds=5, wall_seconds=60)
ROW: dict[str, Any] = {
    "task_id": 11,
    "text": "Write a function to halve a number.",
    "code": "def halve(n):\r\n    return n / 2",
    "test_setup_code": "",
    "test_list": ["assert halve(4) == 2", "assert halve(1) == 0.5", "assert set([halve(2)]) == set([1])"],
    "challenge_test_list": [],
}


def write(folder: Path, *rows: Any) -> str:
    file = folder / "mbpp.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def whole(field_data: Path) -> str:
    return str(field_data / "mbpp" / "mbpp.jsonl.gz")


def test_every_reference_passes_and_no_empty_answer(whole: str) -> None:
    tasks = mbpp.load(whole, split="all")
    assert len(tasks) == 974
    with Pool(2) as pool:
        right = pool.run_many((mbpp.program(task, task.reference) for task in tasks), LIMITS)
        assert {task.id: v for task, v in zip(tasks, right, strict=True) if not v.passed} == {}
        empty = pool.run_many((mbpp.program(task, "") for task in tasks), LIMITS)
        assert [task.id for task, v in zip(tasks, empty, strict=True) if v.passed or v.name == "infra"] == []


def test_splits_are_the_papers(whole: str) -> None:
    sizes = {split: len(mbpp.load(whole, split=split)) for split in mbpp.SPLITS}
    assert sizes == {"prompt": 10, "test": 500, "validation": 90, "train": 374, "all": 974}
    assert len(texts("mbpp", whole)) == 590
    assert [task.id for task in mbpp.load(whole, limit=2)] == ["MBPP/11", "MBPP/12"]
    with pytest.raises(WishError, match="MBPP has no split 'dev'"):
        mbpp.load(whole, split="dev")


def test_equality_is_pythons_and_runs_outside_the_program(tmp_path: Path) -> None:
    (task,) = mbpp.load(write(tmp_path, ROW))
    assert task.prompt == '"""\nWrite a function to halve a number.\nassert halve(4) == 2\n"""\n'
    forged = "class Same(float):\n    __eq__ = lambda self, other: True\n    __hash__ = lambda self: 0\n"
    answers = {
        task.reference: "passed",
        "def halve(n): return n // 2": "wrong",
        forged + "def halve(n): return Same()": "wrong",
        "import os\ndef halve(n): os._exit(0)": "incomplete",
    }
    with Pool(1) as pool:
        assert {text: pool.run(mbpp.program(task, text), LIMITS).name for text in answers} == answers


def test_objects_of_the_programs_own_class_stay_inside(tmp_path: Path) -> None:
    row = ROW | {
        "code": "class Node:\n    left = None\ndef depth(n):\n    return 1 + depth(n.left) if n else 0\n",
        "test_setup_code": "root = Node()\r\nroot.left = Node()",
        "test_list": ["assert depth(root) == 2"],
    }
    (task,) = mbpp.load(write(tmp_path, row))
    with Pool(1) as pool:
        assert pool.run(mbpp.program(task, task.reference), LIMITS).passed
        forged = (
            "class Node:\n    pass\nclass Same:\n    __eq__ = lambda s, o: True\ndef depth(n): return Same()"
        )
        assert pool.run(mbpp.program(task, forged), LIMITS).name == "wrong"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "a list, not a JSON object"),
        ({"task_id": 11}, "text, code, test_list missing or of another type"),
        (ROW | {"test_list": ["assert other(1) == 2"]}, "no test calls a function of the reference"),
        (ROW | {"code": "def halve(n:"}, "a test cannot be read"),
        (ROW | {"task_id": 999}, r"the split test \(task_id 11 to 510\) of .* holds no task"),
    ],
)
def test_rows_that_are_no_task(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(WishError, match=message):
        mbpp.load(write(tmp_path, row))


def test_an_id_seen_twice(tmp_path: Path) -> None:
    with pytest.raises(WishError, match=":2: task_id 'MBPP/11' was seen before"):
        mbpp.load(write(tmp_path, ROW, ROW))
