"""Tasks of one's own: every form of test runs in the real sandbox, and every mistake is named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WishError
from engine.evaluate import Court, find
from engine.evaluate import judge as judging
from engine.sandbox import Limits, Verdict

CUSTOM = find("custom")
ADD = {"task_id": "add", "prompt": "def add(a, b):\n", "entry_point": "add"}
ECHO = {
    "task_id": "sum",
    "prompt": "",
    "tests": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "-1 1\n", "stdout": "0"}],
}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def verdicts(source: str, *answers: str) -> list[Verdict]:
    """Of each answer to the one task of a file."""
    (task,) = CUSTOM.load(source)
    trials = [(task, CUSTOM.program(task, answer)) for answer in answers]
    return [verdict for _, verdict in judging.judge(CUSTOM, len(trials), trials.__getitem__, Court())]


@pytest.mark.parametrize(
    "tests",
    [
        ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'"],
        "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate('a', 'b') == 'ab'\n",
        ["for word in ('a', 'b'):\n    assert add(word, '''\n''') == word + '\\n'", "assert add(1, 2) == 3"],
    ],
    ids=["asserts", "check", "several-lines"],
)
def test_a_function_is_judged_by_asserts_or_a_check(tests: Any, tmp_path: Path) -> None:
    right, wrong, empty = verdicts(
        write(tmp_path / "t.jsonl", {**ADD, "tests": tests}),
        "    return a + b\n",
        "    return a - b if a != 'a' else a + b\n",
        "    pass\n",
    )
    assert right.passed and right.form == "test"
    assert wrong.name in ("wrong", "runtime_error")
    assert empty.name == "wrong"


def test_a_script_is_run_once_for_each_input_and_compared_outside(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", ECHO)
    right, wrong, dies, forged = verdicts(
        source,
        "print(sum(map(int, input().split())))",
        "print(3)",
        "x = input()\nraise SystemExit(1)",
        "print(3, flush=True)\nimport os\nos._exit(0)",
    )
    assert right.passed
    assert (wrong.name, wrong.detail) == ("wrong", "run 2 of 2: printed '3\\n', wanted '0'")
    assert dies.name == "runtime_error" and dies.detail.startswith("run 1 of 2: ")
    assert not forged.passed


def test_a_script_is_given_no_more_input_after_it_failed(tmp_path: Path) -> None:
    """Twenty sleepless loops would take a minute; the first one decides."""
    runs = [{"stdin": str(number), "stdout": "x"} for number in range(20)]
    (verdict,) = verdicts(write(tmp_path / "t.jsonl", {**ECHO, "tests": runs}), "while True: pass")
    assert verdict.name == "cpu_limit" and verdict.detail.startswith("run 1 of 20")
    assert verdict.cpu_seconds < 6


def test_a_script_may_print_as_much_as_is_wanted(tmp_path: Path) -> None:
    row = {**ECHO, "tests": [{"stdin": "", "stdout": "1234567\n" * 40_000}]}
    right, short = verdicts(
        write(tmp_path / "t.jsonl", row), "print('1234567\\n' * 40_000)", "print('1234567\\n' * 39_999)"
    )
    assert right.passed and short.name == "wrong"


@pytest.mark.parametrize(
    ("comparison", "printed", "wanted", "passes"),
    [
        ("exact", "1  2\n", "1 2\n", False),
        ("exact", "1 2 \n\n", "1 2\n", True),
        ("tokens", "1\n2", "1 2\n", True),
        ("tokens", "1.0", "1", False),
        ("floats", "0.3333333", "0.33333333", True),
        ("floats", "0.3334", "0.33333333", False),
        ("floats", "nan", "1.0", False),
        ("floats", "1.0 2.0", "1.0", False),
        ("floats", "Yes 1.0000001", "Yes 1", True),
    ],
)
def test_comparisons(comparison: str, printed: str, wanted: str, passes: bool, tmp_path: Path) -> None:
    row = {**ECHO, "comparison": comparison, "tests": [{"stdin": "", "stdout": wanted}]}
    (verdict,) = verdicts(write(tmp_path / "t.jsonl", row), f"print({printed!r}, end='')")
    assert verdict.passed is passes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": []}, "tests is \\[\\]"),
        ({"tests": ["assert add("]}, "is no Python"),
        ({"tests": "x = 1"}, "defines no check"),
        ({"tests": [{"stdin": "1"}]}, "a test of input and output is"),
        ({"entry_point": "a b"}, "is no name"),
        ({"test": "x"}, "unknown test"),
        ({"prompt": 3}, "prompt missing or of another type"),
        ({"stop": "x"}, "stop of another type"),
        ({"language": "cobol"}, "no language 'cobol'"),
        ({"language": "cpp"}, "asserts are Python's"),
        ({"comparison": "fuzzy"}, "no comparison 'fuzzy'"),
        ({"checker": "def check(*a): return True"}, "a checker and no runs"),
        ({"checker": "x = 1", "tests": [{"stdin": "", "stdout": ""}]}, "checker defines no check"),
        ({"checker": "def", "tests": [{"stdin": "", "stdout": ""}]}, "is no Python"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    row = {**ADD, "tests": ["assert add(1, 2) == 3"], **change}
    good = {**ADD, "task_id": "good", "tests": ["assert add(1, 2) == 3"]}
    with pytest.raises(WishError, match=said) as error:
        CUSTOM.load(write(tmp_path / "tasks.jsonl", good, row))
    assert "tasks.jsonl:2" in str(error.value)


CHECKER = """
def check(stdin, printed, expected):
    try:
        a, b = map(int, printed.split())
    except ValueError:
        return False
    return a * b == int(stdin)
"""
FACTORS = {
    "task_id": "factors",
    "prompt": "",
    "tests": [{"stdin": "12\n", "stdout": ""}, {"stdin": "35\n", "stdout": ""}],
    "checker": CHECKER,
}


def test_a_checker_decides_where_many_answers_are_right(tmp_path: Path) -> None:
    forged = """'\\"]', True]) or True or check(*['"""
    right, other, wrong, prose, forging, dies = verdicts(
        write(tmp_path / "t.jsonl", FACTORS),
        "print(1, input())",
        "n = int(input())\nprint(n // 7 or 1, 7 if n == 35 else n)",
        "print(3, 4)",
        "print('no idea')",
        f"print({forged!r})",
        "raise SystemExit(3)",
    )
    assert right.passed and other.passed and right.form == "script"
    assert (wrong.name, wrong.detail) == ("wrong", "run 2 of 2: the checker refuses '3 4\\n'")
    assert [v.name for v in (prose, forging, dies)] == ["wrong", "wrong", "runtime_error"]


@pytest.mark.parametrize(
    ("checker", "said", "name"),
    [
        ("def check(stdin, printed, expected):\n    return int(printed) > 0", "ValueError", "wrong"),
        ("def check(stdin, printed, expected):\n    pass", "gave None, neither True nor False", "wrong"),
        ("def check(stdin, printed, expected):\n    while True: pass", "cpu_limit", "wrong"),
        (
            "import nothing_like_it\ndef check(stdin, printed, expected): return True",
            "nothing_like_it",
            "infra",
        ),
    ],
)
def test_a_checker_that_fails_at_an_output_refuses_it_and_one_that_cannot_be_loaded_blames_nobody(
    checker: str, said: str, name: str, tmp_path: Path
) -> None:
    (task,) = CUSTOM.load(write(tmp_path / "t.jsonl", {**FACTORS, "checker": checker}))
    trial = (task, CUSTOM.program(task, "print('x')"))
    terms = Court(limits=Limits(cpu_seconds=0.3))
    ((_, verdict),) = judging.judge(CUSTOM, 1, lambda index: trial, terms)
    assert verdict.name == name and verdict.detail.startswith("run 1 of 2: the task's checker"), verdict
    assert said in verdict.detail
