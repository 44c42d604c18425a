"""The field's own yardstick: every canonical solution passes, no stub does, in HumanEval's own form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from engine.sandbox import Limits, Pool, Program

LIMITS = Limits(cpu_seconds=5, wall_seconds=60)


@pytest.fixture(scope="module")
def tasks(field_data: Path) -> list[dict[str, str]]:
    file = field_data / "humaneval" / "HumanEval.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _program(task: dict[str, str], completion: str, *, context: bool = True) -> Program:
    return Program(
        task["prompt"] + completion,
        entry_point=task["entry_point"],
        test=task["test"],
        context=task["prompt"] if context else "",
    )


@pytest.mark.parametrize("context", [True, False])
def test_all_canonical_solutions_pass(pool: Pool, tasks: list[dict[str, str]], context: bool) -> None:
    programs = [_program(task, task["canonical_solution"], context=context) for task in tasks]
    verdicts = pool.run_many(programs, LIMITS)
    failed = {task["task_id"]: v for task, v in zip(tasks, verdicts, strict=True) if not v.passed}
    assert len(tasks) == 164 and not failed


@pytest.mark.parametrize(
    "completion", ["", "    pass\n", "    return None\n", "    import os; os._exit(0)\n"]
)
def test_no_stub_passes(best: Pool, tasks: list[dict[str, str]], completion: str) -> None:
    names = [v.name for v in best.run_many([_program(task, completion) for task in tasks], LIMITS)]
    expected = "incomplete" if "_exit" in completion else "wrong"
    assert names == [expected] * 164
