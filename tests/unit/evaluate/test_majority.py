"""maj@n: which programs vote together, and who wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.evaluate.commands import score as score_command
from engine.evaluate.majority import Vote, answer, digest, majority
from engine.evaluate.passk import wilson
from engine.sandbox import Program

PLAIN = 'def f(x):\n    """Say it."""\n    return x + 1\n'


@pytest.mark.parametrize(
    "same",
    [
        "def f(x):\n    return x + 1\n",
        "def f( x ):\n    '''Other words.'''\n    # a comment\n    return (x\n        + 1)\n",
    ],
)
def test_layout_comments_and_docstrings_make_no_other_answer(same: str) -> None:
    assert answer(Program(same)) == answer(Program(PLAIN))
    assert answer(Program(same, language="go")) != answer(Program(PLAIN, language="go"))


@pytest.mark.parametrize("other", ["def f(x):\n    return 1 + x\n", "def f(y):\n    return y + 1\n"])
def test_another_expression_or_name_is_another_answer(other: str) -> None:
    assert answer(Program(other)) != answer(Program(PLAIN))


@pytest.mark.parametrize(
    "source", ["def f(:", "\0", "\ud800", "x" + ".x" * 50_000, "-" * 90_000 + "1", "a = 0x" + "f" * 9000]
)
def test_what_has_no_syntax_tree_is_its_text(source: str) -> None:
    assert answer(Program(source)) == digest(source)


def votes(text: str) -> list[Vote]:
    """`a` and `b` are answers that pass, capitals ones that fail."""
    return [Vote(letter, letter.islower()) for letter in text]


@pytest.mark.parametrize(
    ("ballot", "passes"), [("aBB", 0), ("aaB", 1), ("Bab", 0), ("abB", 1), ("ABBaa", 0), ("ABaaB", 0)]
)
def test_the_most_common_answer_wins_and_the_first_of_equals(ballot: str, passes: int) -> None:
    found = majority([votes(ballot)])
    assert found is not None and found.value == passes


def test_share_of_tasks_with_its_interval() -> None:
    found = majority([votes("aaB"), votes("BBa"), votes("aBc"), votes("abb")])
    assert found is not None
    assert (found.value, found.low, found.high) == (0.75, *wilson(3, 4))
    assert majority([votes("ab"), votes("a")]) is None and majority([]) is None
    short = majority([votes("aab"), votes("aa")])
    assert short is not None and short.value is None
    assert short.reason == "1 of 2 tasks have fewer than 3 scored samples"


def test_a_samples_file_is_voted_on(small: Path, tmp_path: Path) -> None:
    bodies = ["    return x * 2\n", "    return x*2  # twice\n", "    return 5\n"]
    rows: list[dict[str, Any]] = [{"task_id": "Small/0", "completion": body} for body in bodies]
    rows += [{"task_id": "Small/1", "completion": body} for body in ("    return 0\n",) * 2]
    rows += [{"task_id": "Small/1", "completion": "    return items[0]\n"}]
    samples = tmp_path / "s.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--benchmark", "humaneval", "--data", str(small), "--samples", str(samples), "--k", "1,3"]
    result = CliRunner().invoke(score_command, [*arguments, "--json", "--out", str(tmp_path / "out")])
    found = json.loads(result.stdout)
    assert found["majority"] == {"value": 0.5, "low": wilson(1, 2)[0], "high": wilson(1, 2)[1]}
    assert found["pass_at_k"]["3"]["value"] == 1.0 and found["pass_hat_k"]["3"]["value"] == 0.0
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len({line["program_sha256"] for line in lines}) == 5
    assert len({line["answer_sha256"] for line in lines}) == 4
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
    table = CliRunner().invoke(score_command, arguments).stdout
    assert "pass@3    100.00%" in table and "pass^3      0.00%" in table and "pass^1" not in table
