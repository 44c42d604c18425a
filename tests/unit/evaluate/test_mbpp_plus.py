"""MBPP+: both formats, values JSON cannot spell, and the few tasks where equality is not the question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WishError
from engine.evaluate import Court, Task, find
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import oracle
from engine.sandbox import Verdict

PLUS = find("mbpp-plus")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle._answers.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def native(number: int, name: str, reference: str, plus: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"Mbpp/{number}",
        "prompt": f'"""\nWrite {name}.\n"""\n',
        "entry_point": name,
        "canonical_solution": f"\n{reference}\n",
        "base_input": plus[:1],
        "plus_input": plus[1:],
        "atol": 0,
        "contract": "",
        "assertion": "",
        **changes,
    }


def hub(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": 9001,
        "code": "def half(x):\r\n    return x / 2",
        "prompt": "Write a function to halve a number.",
        "source_file": "own",
        "test_imports": [],
        "test_list": ["assert half(4.0) == 2.0"],
        "test": "inputs = [[4.0], [inf], [-3.0]]\nresults = [2.0, inf, -1.5]\n"
        "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(half(*inp), exp, 0)\n",
        **changes,
    }


def load(path: Path, *rows: dict[str, Any], split: str = "test") -> list[Task]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PLUS.load(str(path), split=split)


def verdicts(*asked: tuple[Task, str]) -> list[Verdict]:
    trials = [(task, PLUS.program(task, answer)) for task, answer in asked]
    return [verdict for _, verdict in judging.judge(PLUS, len(trials), trials.__getitem__, Court())]


def test_an_answer_right_for_mbpp_alone_fails_on_the_new_inputs(tmp_path: Path) -> None:
    row = native(9000, "half", "def half(x):\n    return x / 2", [[2.0], [-3.0]])
    (task,) = load(tmp_path / "t.jsonl", row)
    fragile = "def half(x):\n    return abs(x) / 2\n"
    right, wrong, empty = verdicts((task, task.reference), (task, fragile), (task, ""))
    assert right.passed and right.form == "test"
    assert wrong.name == "wrong" and "plus input, number 2" in wrong.detail
    assert not empty.passed
    (task,) = load(tmp_path / "t.jsonl", row, split="base")
    assert verdicts((task, fragile))[0].passed


def test_rows_of_the_hub_are_answered_by_their_reference(tmp_path: Path) -> None:
    (task,) = load(tmp_path / "t.jsonl", hub())
    assert task.id == "Mbpp/9001" and "assert half(4.0) == 2.0" in task.prompt
    found = verdicts(
        (task, task.reference),
        (task, "def half(x):\n    return x * 0.5 + 1e-9\n"),
        (task, "def half(x):\n    return max(x, 0) / 2\n"),
        (task, "def half(x):\n    return x / 2 if x < 99 else 0.0\n"),
    )
    assert [verdict.passed for verdict in found] == [True, True, False, False], found
    with pytest.raises(WishError, match="which inputs are MBPP's own"):
        load(tmp_path / "t.jsonl", hub(), split="base")
    with pytest.raises(WishError, match=r"t\.jsonl:1: a test cannot be read"):
        load(tmp_path / "t.jsonl", hub(test="inputs = make()\n"))


SPELT: dict[int, tuple[list[Any], str]] = {
    2: ([[1, 2], [3]], "((1, 2), (3,))"),
    63: ([[[1, 2], [3]]], "([(1, 2), (3,)],)"),
    75: ([[[1], [2]], 5], "([(1,), (2,)], 5)"),
    106: ([[1], [2]], "([1], (2,))"),
    307: ([["a", []], 1, 50], "(('a', []), 1, 50)"),
    278: ([[1, [2, 3]]], "((1, (2, 3)),)"),
    580: ([[1, [2, [3]]]], "((1, (2, (3,))),)"),
    722: ([{"a": [1, 2]}, 3], "({'a': (1, 2)}, 3)"),
    115: ([[[1], []]], "([{1}, {}],)"),
    124: (["0", "1j"], "(0.0, 1j)"),
    252: (["1+2j"], "((1+2j),)"),
    9000: ([[1, [2]]], "([1, [2]],)"),
}


def test_the_native_file_s_lists_become_what_the_task_takes(tmp_path: Path) -> None:
    reference = "def kinds(*given):\n    return [type(value).__name__ for value in given]"
    rows = [native(number, "kinds", reference, [given]) for number, (given, _) in SPELT.items()]
    tasks = load(tmp_path / "t.jsonl", *rows)
    found: dict[int, str] = {}
    for number, task in zip(SPELT, tasks, strict=True):
        space: dict[str, Any] = {}
        exec(str(task.test), space)
        found[number] = repr(tuple(space["INPUTS"][0][1]))
    assert found == {number: shown for number, (_, shown) in SPELT.items()}
    numbers = tasks[list(SPELT).index(124)]
    right, wrong = verdicts(
        (numbers, numbers.reference), (numbers, "def kinds(a, b):\n    return ['str', 'complex']\n")
    )
    assert right.passed and wrong.name == "wrong", (right, wrong)


def test_tasks_where_equality_is_not_the_question(tmp_path: Path) -> None:
    rows = [
        native(769, "Diff", "def Diff(a, b):\n    return [1, 2]", [[[1, 2, 3], [3]]]),
        native(
            745, "check_str", "import re\ndef check_str(s):\n    return re.match('a', s)", [["ab"], ["b"]]
        ),
        native(164, "are_equivalent", "def are_equivalent(a, b):\n    return True", [[3, 4]]),
        native(295, "sum_div", "def sum_div(n):\n    return 1 + n", [[7]]),
        native(
            581, "surface_Area", "def surface_Area(b, s):\n    return 2 * b * s + b * b", [[3, 4]], atol=1e-4
        ),
        native(558, "digit_distance_nums", "def digit_distance_nums(a, b):\n    return -1", [[23, 156]]),
    ]
    free, match, any_, div, area, digits = load(tmp_path / "t.jsonl", *rows)
    right = [
        (free, "def Diff(a, b):\n    return (2, 1, 1)\n"),
        (match, "def check_str(s):\n    return s[0] == 'a'\n"),
        (match, "import re\ndef check_str(s):\n    return re.search('^a', s)\n"),
        (any_, "def are_equivalent(a, b):\n    return False\n"),
        (div, "def sum_div(n):\n    return 0\n"),
        (area, "def surface_Area(b, h):\n    return round(b * b + 2 * b * ((b / 2) ** 2 + h * h) ** 0.5)\n"),
        (area, "def surface_Area(b, s):\n    return 33\n"),
        (digits, "def digit_distance_nums(a, b):\n    return 1 + 3 + 3\n"),
    ]
    wrong = [
        (free, "def Diff(a, b):\n    return [1, 2, 3]\n"),
        (free, "def Diff(a, b):\n    return [[1], [2]]\n"),
        (match, "def check_str(s):\n    return s[0] == 'b'\n"),
        (match, "def check_str(s):\n    return None\n"),
        (div, "def sum_div(n):\n    return 1\n"),
        (area, "def surface_Area(b, h):\n    return 34\n"),
        (digits, "def digit_distance_nums(a, b):\n    return 0\n"),
    ]
    found = verdicts(*right, *wrong)
    assert [verdict.passed for verdict in found] == [True] * len(right) + [False] * len(wrong), found
    assert not any(verdict.name == "infra" for verdict in found)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"plus_input": "[]"}, r"t\.jsonl:1: not a task in EvalPlus's native format, plus_input"),
        ({"entry_point": "a b"}, r"\.jsonl:1: entry_point 'a b' is no name"),
        ({"task_id": "Mbpp/124", "base_input": [["x"]]}, "inputs of another shape"),
    ],
)
def test_a_row_that_is_no_task_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    row = native(9000, "half", "def half(x):\n    return x / 2", [[2.0]])
    with pytest.raises(WishError, match=match):
        load(tmp_path / "t.jsonl", row | changes)
    with pytest.raises(WishError, match="no split 'train'"):
        load(tmp_path / "t.jsonl", row, split="train")
