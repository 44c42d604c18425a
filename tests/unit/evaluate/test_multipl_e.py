"""MultiPL-E: right, wrong and empty answers, compiled and run in every language that has a toolchain here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from engine.errors import WishError
from engine.evaluate import Court, find
from engine.evaluate import judge as judging
from engine.evaluate.score import score
from engine.generate import extract
from engine.sandbox.foreign.toolchain import languages

BENCHMARK = find("multipl-e")
BODIES = {
    "js": ("    return x + y;\n}\n", "    return x - y;\n}\n"),
    "ts": ("    return x + y;\n}\n", "    return x - y;\n}\n"),
    "cpp": ("    return x + y;\n", "    return x - y;\n"),
    "rs": ("    x + y\n", "    x - y\n"),
    "sh": ("    echo $(($1 + $2))\n", "    echo $(($1 - $2))\n"),
    "pl": ("    my ($x, $y) = @_;\n    return $x + $y;\n}\n", "    return 1;\n}\n"),
    "lua": ("    return x + y\nend\n", "    return x - y\nend\n"),
}


@pytest.mark.parametrize("suffix", BODIES)
def test_right_answers_pass_and_wrong_and_empty_ones_fail(suffix: str, field_data: Path) -> None:
    file = field_data / "multipl_e" / f"humaneval-{suffix}.jsonl.gz"
    task = next(t for t in BENCHMARK.load(str(file)) if t.id == f"{suffix}/HumanEval_53_add")
    if languages()[task.language].missing:
        pytest.skip(languages()[task.language].missing)
    right, wrong = BODIES[suffix]
    fence = f"Here it is:\n\n```{task.language}\n{task.prompt}{right}"
    chat = extract(fence + ("}\n```\n" if task.stop == ("\n}",) else "```\n"), task, chat=True)
    answers = (right, chat, wrong, "")
    trials = [(task, BENCHMARK.program(task, answer)) for answer in answers]
    verdicts = [v for _, v in judging.judge(BENCHMARK, len(trials), trials.__getitem__, Court())]
    missing = [v.stderr for v in verdicts[:1] if "Test/Deep" in v.stderr or "luaunit" in v.stderr]
    if missing:
        pytest.skip(f"the tests' own library is missing: {missing[0][:80]}")
    assert [v.passed for v in verdicts] == [True, True, False, False], verdicts
    assert verdicts[0].toolchain


def test_a_whole_solution_is_judged_as_the_program_it_is(field_data: Path, tmp_path: Path) -> None:
    file = field_data / "multipl_e" / "humaneval-sh.jsonl.gz"
    task = next(t for t in BENCHMARK.load(str(file)) if t.id == "sh/HumanEval_53_add")
    right, wrong = BODIES["sh"]
    closed = "" if (task.test or "").lstrip().startswith("}") is False else "}\n"
    rows = [{"task_id": task.id, "solution": f"add() {{\n{body}{closed}"} for body in (right, wrong)]
    rows += [{"task_id": task.id, "completion": right}, {"task_id": task.id, "solution": ""}]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score("multipl-e", str(file), str(tmp_path / "s.jsonl"), court=Court(), out=tmp_path / "out")
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] == "passed" for line in lines] == [True, False, True, False]


def test_a_language_the_sandbox_does_not_run_is_named(tmp_path: Path) -> None:
    row = {"name": "HumanEval_1_x", "language": "jl", "prompt": "", "tests": "", "stop_tokens": []}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(WishError, match=r"t\.jsonl:1: the sandbox does not run MultiPL-E's 'jl'"):
        BENCHMARK.load(str(tmp_path / "t.jsonl"))


def test_a_toolchain_that_is_not_there_is_said_and_nothing_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"name": "HumanEval_1_x", "language": "lua", "prompt": "x", "tests": "y", "stop_tokens": []}
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write(json.dumps(row))
    (task,) = BENCHMARK.load(str(tmp_path / "t.jsonl.gz"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("engine.sandbox.foreign.toolchain._PATH", str(tmp_path))
    monkeypatch.setattr("engine.sandbox.foreign.toolchain._found", {})
    trial = (task, BENCHMARK.program(task, ""))
    with pytest.raises(WishError, match=r"toolchain missing: programs in lua need"):
        list(judging.judge(BENCHMARK, 1, lambda index: trial, Court()))
