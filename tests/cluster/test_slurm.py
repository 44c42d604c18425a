"""A real SLURM of two nodes: submitted runs go to their end, are stopped and saved, and are taken out of the queue."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import ROOT, TEMPER, Slurm, Wish, until

pytestmark = pytest.mark.cluster


def temper(slurm: Slurm, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [*TEMPER, *words], cwd=ROOT, env=slurm.environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def ended(slurm: Slurm, folder: Path) -> Callable[[], bool]:
    return lambda: temper(slurm, "status", str(folder)).startswith("ended")


def told(folder: Path) -> str:
    return "".join(file.read_text() for file in sorted(folder.glob("submissions/*/*.log")))


def verdict(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("nodes/*/verdict.json")
    return json.loads(file.read_text())


def test_a_submitted_run_goes_to_its_end_on_two_nodes(slurm: Slurm, wish: Wish) -> None:
    run, place = wish.run("whole run"), wish.cluster("slurm", nodes=2)
    folder = wish.folder / "whole run"
    shown = temper(slurm, "submit", str(run), "--on", str(place), "--dry-run")
    temper(slurm, "submit", str(run), "--on", str(place))
    # What was shown is what was submitted, to the byte.
    for name in ("job.json", "run.yaml", "batch.sh"):
        file = folder / "submissions" / "1" / name
        assert f"# {file}\n{file.read_text()}" in shown
    until(ended(slurm, folder), "the end", folder / "submissions" / "1", 500)
    assert verdict(folder)["exit_code"] == 0, told(folder)
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["strategy"] == "ZeRO-3 over 2 ranks (gloo), 50% of weights here"
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob("nodes/*/node-*.json"))]
    assert [(report["host"], report["code"]) for report in reports] == [("n1", 0), ("n2", 0)]
    assert [death["rank"] for report in reports for death in report["deaths"]] == [0, 1]
    assert "Finished after step 4" in temper(slurm, "status", str(folder))
    assert "step 4/4" in temper(slurm, "logs", str(folder))


def test_a_cancelled_run_is_saved_and_not_queued_again(slurm: Slurm, wish: Wish) -> None:
    run, place = wish.run("cut"), wish.cluster("slurm", nodes=2)
    folder = wish.folder / "cut"
    temper(slurm, "submit", str(run), "--on", str(place), "--set", "train.steps=100000")
    metrics = folder / "metrics.jsonl"
    until(
        lambda: metrics.exists() and metrics.read_text().count("\n") > 3,
        "steps",
        folder / "submissions" / "1",
        500,
    )
    refused = temper(slurm, "submit", str(run), "--on", str(place), code=2)
    assert "was submitted before and is running" in refused
    temper(slurm, "cancel", str(folder))
    until(ended(slurm, folder), "the end", folder / "submissions" / "1", 200)
    assert verdict(folder)["exit_code"] == 75, told(folder)
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["status"] == "preempted" and Path(outcome["checkpoint"]).is_dir()
    time.sleep(1)
    assert slurm.ask("squeue", "--noheader", "--states=PENDING,RUNNING") == ""


def test_a_waiting_run_is_taken_out(slurm: Slurm, wish: Wish) -> None:
    folder = wish.folder / "waiting"
    place = wish.cluster("slurm", nodes=2, lines=["#SBATCH --begin=now+1hour"])
    temper(slurm, "submit", str(wish.run("waiting")), "--on", str(place))
    assert temper(slurm, "status", str(folder)).startswith("queued")
    temper(slurm, "cancel", str(folder))
    assert temper(slurm, "status", str(folder)).startswith("ended: job")
    assert temper(slurm, "cancel", str(folder)) == "it has ended already\n"


def test_what_slurm_refuses_is_told(slurm: Slurm, wish: Wish) -> None:
    place = wish.cluster("slurm", nodes=2, partition="none-such")
    said = temper(slurm, "submit", str(wish.run("refused")), "--on", str(place), code=3)
    assert "sbatch refused" in said and "partition" in said


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def test_a_run_out_of_time_is_queued_again_and_ends_as_if_nothing_had_been(slurm: Slurm, wish: Wish) -> None:
    place = wish.cluster("slurm", nodes=2)
    folders = {name: wish.folder / name for name in ("cut-in-two", "in-one")}
    longer = ("--on", str(place), "--set", "train.steps=60")
    temper(slurm, "submit", str(wish.run("cut-in-two")), *longer)
    metrics = folders["cut-in-two"] / "metrics.jsonl"
    logs = folders["cut-in-two"] / "submissions" / "1"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 3, "steps", logs, 500)
    job = json.loads((folders["cut-in-two"] / "submission.json").read_text())["job"]
    # The signal that `#SBATCH --signal=B:USR1@300` asks SLURM for, to the same process.
    slurm.ask("scancel", "--batch", "--signal=USR1", job)
    outcome = folders["cut-in-two"] / "outcome.json"
    until(lambda: outcome.exists() and "preempted" in outcome.read_text(), "the first half", logs, 100)
    stopped = json.loads(outcome.read_text())["step"]
    until(ended(slurm, folders["cut-in-two"]), "the end", logs, 500)
    assert stopped < 60, "it was not cut"
    temper(slurm, "submit", str(wish.run("in-one")), *longer)
    until(ended(slurm, folders["in-one"]), "the end", folders["in-one"] / "submissions" / "1", 500)
    halves = [json.loads(file.read_text()) for file in folders["cut-in-two"].glob("nodes/*/verdict.json")]
    assert sorted(half["exit_code"] for half in halves) == [0, 75], told(folders["cut-in-two"])
    assert losses(folders["cut-in-two"]) == losses(folders["in-one"])
    assert sorted(losses(folders["in-one"]))[-1] == 60
