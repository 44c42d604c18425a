"""CRUXEval: an answer is data, compared with what the function gives; whatever else it is is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WishError
from engine.evaluate import Court, Task, find
from engine.evaluate import judge as judging
from engine.generate import extract
from engine.sandbox import Verdict

CRUX = find("cruxeval")
ROW = {
    "id": "sample_own",
    "code": "def f(text, n=1):\n    if n < 0:\n        raise ValueError(n)\n    return [text * n, n == 1]",
    "input": "'ab', 2",
    "output": "['abab', False]",
}


def load(path: Path, split: str, **changes: Any) -> Task:
    path.write_text(json.dumps(ROW | changes))
    (task,) = CRUX.load(str(path), split=split)
    return task


def verdicts(task: Task, *answers: str) -> list[Verdict]:
    trials = [(task, CRUX.program(task, answer)) for answer in answers]
    return [verdict for _, verdict in judging.judge(CRUX, len(trials), trials.__getitem__, Court())]


def test_outputs(tmp_path: Path) -> None:
    task = load(tmp_path / "t.jsonl", "test")
    assert task.prompt.endswith("assert f('ab', 2) ==") and not task.prompt.count("abab")
    right = [task.reference, "['ab' 'ab', False]", '["abab", 0]  # twice', "== ['abab', False]\n"]
    right.append("assert f('ab', 2) == ['abab', False]")
    wrong = ["['abab', True]", "('abab', False)", "['abab']", "1e999"]
    no_literal = ["f('ab', 2)", "['ab' * 2, False]", "", "[", "...", "[" * 120 + "]" * 120, "9" * 30_000]
    no_literal += ["{[]: 1}", "[x for x in ('abab', False)]", "\ud800", "__import__('os').getcwd()"]
    found = verdicts(task, *right, *wrong, *no_literal)
    assert [v.name for v in found] == ["passed"] * len(right) + ["wrong"] * (len(wrong) + len(no_literal)), (
        found
    )
    assert all("not written in literals" in v.detail for v in found[len(right) + len(wrong) :]), found
    assert "f('ab', 2) is none" in found[len(right) + len(wrong)].detail
    assert {v.isolation for v in found} == {found[0].isolation}


def test_inputs(tmp_path: Path) -> None:
    task = load(tmp_path / "t.jsonl", "input")
    assert task.prompt.endswith("assert ['abab', False] == f(") and "'ab', 2" not in task.prompt
    right = [task.reference, "'ab', n=2)", "f('ab', 2)", "'ab', 2", "assert f('ab', 2) == ['abab', False]"]
    assert all(v.passed for v in verdicts(task, *right))
    wrong = ["text='abab', n=1)", "'ab', 3)", "'ab', 2, 3)", "'ab', -1)", "'ab', m=2)"]
    no_literal = ["*('ab', 2))", "**{'text': 'ab', 'n': 2})", "'ab', n=1, n=2)", "f(f('ab'))", "...)", ""]
    no_literal += ["[" * 110 + "]" * 110 + ", 2)", "print('ab'), 2)", "g('ab', 2)"]
    found = verdicts(task, *wrong, *no_literal)
    assert not any(v.passed or v.name == "infra" for v in found), found
    assert all(v.name == "wrong" for v in found[len(wrong) :])


OTHER = "assert f('ab', 2) == ['ab', True]"


def test_the_first_whole_answer_counts_whatever_follows(tmp_path: Path) -> None:
    task = load(tmp_path / "t.jsonl", "test")
    right = "['abab', False]"
    first = [
        f" {right}\n{OTHER}\n", f"assert f('ab', 2) == {right}\n{OTHER}", f"{right}\n[]", f"=={right}\n\n# so\n1\n",
        f"['abab',\n False]\nIt's that, since {OTHER}", f"{right}\nIt's (open", f"# no\n{right}\n{OTHER}",
        f"[ANSWER]\n{right}\n[/ANSWER]\n[ANSWER]\n[]\n[/ANSWER]", f"So:\n[ANSWER]\nassert f('ab', 2) == {right}",
        f"{right}\n[/ANSWER]\n{OTHER}",
    ]  # fmt: skip
    found = verdicts(task, *first)
    assert all(v.passed for v in found), found
    later = [
        f"[]\n{right}",
        f"{OTHER}\nassert f('ab', 2) == {right}",
        f"[ANSWER]1[/ANSWER]{right}",
        f"[] {right}",
    ]
    assert [v.name for v in verdicts(task, *later)] == ["wrong"] * len(later)


def test_the_first_whole_call_counts_whatever_follows(tmp_path: Path) -> None:
    task = load(tmp_path / "t.jsonl", "input")
    other = "assert ['abab', False] == f('x', 1)"
    first = [
        f"'ab', 2)\n{other}", f"'ab', 2\n{other}", f"f('ab', 2)\n{other}", "'ab',\n2)\nIt's so",
        f"assert ['abab', False] == f('ab', 2)\n{other}", "[ANSWER]\nf('ab', 2)\n[/ANSWER] f('x', 1)",
    ]  # fmt: skip
    found = verdicts(task, *first)
    assert all(v.passed for v in found), found
    later = ["'x', 1)\nf('ab', 2)", f"{other}\nf('ab', 2)", "f('x', 1)\nf('ab', 2)"]
    assert not any(v.passed for v in verdicts(task, *later))


def test_answers_of_a_chat_are_found(tmp_path: Path) -> None:
    output, given = load(tmp_path / "t.jsonl", "output"), load(tmp_path / "t.jsonl", "input")
    assert "```python\ndef f" in output.question and "abab" not in output.question
    assert "'ab', 2" not in given.question and "['abab', False]" in given.question
    said = "It repeats the text.\n\n```python\n['abab', False]\n```\n"
    assert verdicts(output, extract(said, output, chat=True))[0].passed
    said = "Twice.\n```python\nf('ab', 2)\n```"
    assert verdicts(given, extract(said, given, chat=True))[0].passed


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"output": None}, r"t\.jsonl:1: not a task in CRUXEval's format, output"),
        ({"input": "1, ("}, "its input is no Python"),
        ({"output": "x ="}, "its output is no Python"),
    ],
)
def test_a_row_that_is_no_task_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(WishError, match=match):
        load(tmp_path / "t.jsonl", "test", **changes)
    with pytest.raises(WishError, match="no split 'train'"):
        load(tmp_path / "t.jsonl", "train")
