"""The same programs from any number of ranks, in and out of a run, whole, sharded, quantised or adapted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import load
from launch.command import plan

from ..unit.evaluate.library_rows import ABSENT, unit_tested

pytestmark = pytest.mark.dist

SAMPLED = {"benchmark": "basics", "limit": 10, "max_new_tokens": 12, "samples": 2, "temperature": 0.9}


def evaluate(run_file: Path, *words: str) -> Path:
    """Run `temper evaluate` on a run file; returns the folder of its only evaluation."""
    made = plan(load(run_file).run, "evaluate", str(run_file), (), words)
    argv = [str(Path(sys.executable).with_name(made.argv[0])), *made.argv[1:]]
    done = subprocess.run(
        argv, env=os.environ | dict(made.environment), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (load(run_file).run.folder / "evaluations").glob("*-test*")
    return folder


def programs(folder: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl but for the name of the answer, in which the weights' folder is."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "key"} for line in lines]


def test_no_program_depends_on_ranks_or_batch_in_fp32(wish: Callable[..., Path]) -> None:
    results = []
    for ranks, batch in ((1, 20), (2, 3)):
        parallel = {"strategy": "ddp" if ranks > 1 else "none", "processes": ranks, "precision": "fp32"}
        file = wish(f"judged-{ranks}", parallel=parallel, evaluate=SAMPLED | {"batch": batch})
        folder = evaluate(file, "--base")
        assert len(list(folder.glob("generations-rank*.jsonl"))) == ranks
        results.append(programs(folder))
    assert results[0] == results[1]
    assert len({line["completion"] for line in results[0]}) > 15, "all alike, so nothing is compared"


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind", "precision"), [("zero3", "full", "fp32"), ("zero2", "qlora", "bf16")])
def test_a_run_judges_itself_on_the_way_and_its_result_afterwards(
    wish: Callable[..., Path], launch: Callable, strategy: str, kind: str, precision: str
) -> None:
    file = wish(
        f"{strategy}-{kind}",
        train={"steps": 4, "evaluate_every": 2},
        adapter={"kind": kind, "rank": 4},
        parallel={"strategy": strategy, "processes": 2, "precision": precision},
        evaluate=SAMPLED | {"in_loop_limit": 5},
    )
    ended = launch(file)
    assert ended.exit_code == 0, ended.output
    for step in ("step-000002", "step-000004"):
        folder = ended.folder / "evaluations" / "in-loop" / step
        assert len(programs(folder)) == 5
        assert len(list(folder.glob("generations-rank*.jsonl"))) == 2, "both ranks drew"
    if kind == "qlora":
        assert len(programs(evaluate(file))) == 20


def test_tasks_with_libraries_are_judged_and_looked_at(
    wish: Callable[..., Path], tmp_path: Path
) -> None:
    """BigCodeBench over two ranks: what a task lacks is found out on one rank and left out by both."""
    rows = [unit_tested(0), unit_tested(1), unit_tested(2, libs=f"['{ABSENT}']")]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = wish(
        "libraries",
        parallel={"strategy": "ddp", "processes": 2},
        evaluate={
            "benchmark": "bigcodebench", "data": str(data), "max_new_tokens": 4, "efficiency": 3, "static": True
        },
    )  # fmt: skip
    folder = evaluate(file, "--base")
    assert {line["task_id"] for line in programs(folder)} == {"Own/0", "Own/1"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["not_judged"] == {"tasks": 1, "libraries": {ABSENT: 1}}
    assert summary["efficiency"]["repeats"] == 3 and summary["static"]["references"]["programs"] == 1
    assert (folder / "efficiency.jsonl").read_text() == "", "a program of four tokens passed"
