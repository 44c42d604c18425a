"""HumanEval+: references pass, answers that only HumanEval's own inputs accept fail, floats may differ a little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WishError
from engine.evaluate import Court, find
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import oracle
from engine.sandbox import Verdict

PLUS = find("humaneval-plus")
COURT = Court()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle._answers.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, **changes: Any) -> str:
    row = {
        "task_id": "Own/0",
        "prompt": "def half(x):\n",
        "entry_point": "half",
        "canonical_solution": "    return x / 2\n",
        "test": "def check(candidate):\n    assert candidate(2.0) == 1.0\n",
        "base_input": [[2.0]],
        "plus_input": [[3.0], [-1.0]],
        "atol": 0,
        **changes,
    }
    path.write_text(json.dumps(row))
    return str(path)


def verdicts(source: str, *answers: str, split: str = "test") -> list[Verdict]:
    (task,) = PLUS.load(source, split=split)
    trials = [(task, PLUS.program(task, answer)) for answer in answers]
    return [verdict for _, verdict in judging.judge(PLUS, len(trials), trials.__getitem__, COURT)]


def test_an_answer_right_for_humaneval_alone_fails_on_the_new_inputs(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl")
    fragile = "    return abs(x) / 2\n"
    right, near, far, short = verdicts(
        source, "    return x * 0.5\n", "    return x / 2 + 1e-9\n", "    return x / 2 + 1e-4\n", fragile
    )
    assert right.passed and near.passed
    assert far.name == "wrong" and "base input, number 1" in far.detail
    assert short.name == "wrong" and "plus input, number 3" in short.detail
    assert verdicts(source, fragile, split="base")[0].passed


@pytest.mark.parametrize(
    ("reference", "other", "wrong"),
    [
        ("return 7 ** int(x * 5000)", "return pow(7, int(x * 5000))", "return 7 ** int(x * 5000) + 1"),
        ("return list(range(9000)) + [x]", "return [*range(9000), x]", "return [*range(8999), 0, x]"),
        ("return {1: (x,), 'a': None}", "return {'a': None, 1: (x,)}", "return {1: [x], 'a': None}"),
        ("return float('inf') * x", "return x * 1e999", "return x * 1e300"),
    ],
    ids=["an int of many digits", "a long list", "a dict", "infinity"],
)
def test_answers_of_every_kind_come_through(reference: str, other: str, wrong: str, tmp_path: Path) -> None:
    source = write(
        tmp_path / "t.jsonl", canonical_solution=f"    {reference}\n", plus_input=[[1.0]], base_input=[[2.0]]
    )
    found = verdicts(source, f"    {reference}\n", f"    {other}\n", f"    {wrong}\n", "    pass\n")
    assert [verdict.name for verdict in found] == ["passed", "passed", "wrong", "wrong"], found


def test_the_answers_are_kept_and_are_those_of_this_reference(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl")
    verdicts(source, "    return x / 2\n")
    kept = list((tmp_path / "cache").rglob("*.txt"))
    assert len(kept) == 1
    oracle._answers.cache_clear()
    assert verdicts(source, "    return x / 2\n")[0].passed  # from what was kept
    other = write(tmp_path / "t.jsonl", canonical_solution="    return x / 4\n")
    assert not verdicts(other, "    return x / 2\n")[0].passed
    assert len(list((tmp_path / "cache").rglob("*.txt"))) == 2


def test_a_file_in_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WishError, match=r"t\.jsonl:1: not a task in EvalPlus's native format, plus_input"):
        PLUS.load(write(tmp_path / "t.jsonl", plus_input="[]"))
    with pytest.raises(WishError, match="no split 'train'"):
        PLUS.load(write(tmp_path / "t.jsonl"), split="train")


def test_roots_of_a_polynomial_are_put_into_it(tmp_path: Path) -> None:
    """Many roots are right: HumanEval/32's answers are not compared with the reference's."""
    poly = "def poly(xs, x): return sum(c * x ** n for n, c in enumerate(xs))\n\n\ndef find_zero(xs):\n"
    roots = {
        "entry_point": "find_zero",
        "prompt": poly,
        "canonical_solution": "    return 1.0\n",
        "atol": 1e-4,
    }
    (task,) = PLUS.load(write(tmp_path / "t.jsonl", **roots, base_input=[[[-1, 0, 1]]], plus_input=[]))
    trials = [(task, PLUS.program(task, f"    return {root}\n")) for root in ("1.0", "-1.0", "0.0")]
    found = [v.name for _, v in judging.judge(PLUS, len(trials), trials.__getitem__, COURT)]
    assert found == ["passed", "passed", "wrong"]


def test_all_references_are_run_by_one_worker(tmp_path: Path) -> None:
    oracle._pool.cache_clear()
    for number in range(3):
        assert verdicts(write(tmp_path / "t.jsonl", plus_input=[[float(number)]]), "    return x / 2\n")[
            0
        ].passed
    assert len(list((tmp_path / "cache").rglob("*.txt"))) == 3
    assert oracle._pool.cache_info().misses == 1
