"""A real SLURM of two nodes: submitted runs go to their end, are stopped and saved, and are taken out of the queue."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.machines import ROOT, TEMPER, TINY, Slurm, Wish, until

# Those without it take seconds and are part of the default suite, where root and the tools are there.
cluster = pytest.mark.cluster


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


@cluster
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


@cluster
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


STEPS = 60


@pytest.fixture(scope="module")
def whole(slurm: Slurm, hosts: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that nothing happens to."""
    wish = Wish(tmp_path_factory.mktemp("whole"), hosts)
    folder = wish.folder / "in-one"
    cut(slurm, wish, "in-one")
    until(ended(slurm, folder), "the end", folder / "submissions" / "1", 500)
    assert verdict(folder)["exit_code"] == 0, told(folder)
    found = losses(folder)
    assert sorted(found)[-1] == STEPS
    return found


def cut(slurm: Slurm, wish: Wish, name: str, *words: str, **place: Any) -> str:
    """Submit a run that is to be cut; returns its job once it steps."""
    cluster = wish.cluster("slurm", nodes=2, **place)
    temper(
        slurm, "submit", str(wish.run(name)), "--on", str(cluster),
        "--set", f"train.steps={STEPS}", "--set", "checkpoint.every=5", *words,
    )  # fmt: skip
    folder = wish.folder / name
    metrics = folder / "metrics.jsonl"
    logs = folder / "submissions" / "1"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 7, "steps", logs, 500)
    return str(json.loads((folder / "submission.json").read_text())["job"])


def halves(slurm: Slurm, folder: Path) -> list[int]:
    """How the starts of a run ended, once the last has."""
    until(ended(slurm, folder), "the end", folder / "submissions" / "1", 500)
    files = sorted(folder.glob("nodes/*/verdict.json"), key=lambda file: file.stat().st_mtime)
    return [json.loads(file.read_text())["exit_code"] for file in files]


def preempted(folder: Path) -> int:
    """The step a run was saved at, once it was."""
    outcome = folder / "outcome.json"
    until(
        lambda: outcome.exists() and "preempted" in outcome.read_text(),
        "the first half",
        folder / "submissions" / "1",
        100,
    )
    return int(json.loads(outcome.read_text())["step"])


@cluster
def test_a_run_out_of_time_is_queued_again_and_ends_as_if_nothing_had_been(
    slurm: Slurm, wish: Wish, whole: dict[int, float]
) -> None:
    job, folder = cut(slurm, wish, "cut-in-two"), wish.folder / "cut-in-two"
    # The signal that `#SBATCH --signal=B:USR1@300` asks SLURM for, to the same process.
    slurm.ask("scancel", "--batch", "--signal=USR1", job)
    assert preempted(folder) < STEPS, "it was not cut"
    assert halves(slurm, folder) == [75, 0], told(folder)
    assert losses(folder) == whole


@cluster
def test_a_run_that_a_more_urgent_job_displaces_goes_on_after_it(
    slurm: Slurm, wish: Wish, whole: dict[int, float]
) -> None:
    cut(slurm, wish, "displaced", partition="low")
    folder = wish.folder / "displaced"
    urgent = slurm.ask(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--wrap=sleep 1", "--output=/dev/null"
    )
    assert preempted(folder) < STEPS, "it was not displaced"
    assert halves(slurm, folder) == [75, 0], told(folder)
    assert losses(folder) == whole
    assert "COMPLETED" in slurm.ask("scontrol", "show", "job", urgent)


@cluster
def test_a_node_that_goes_down_costs_the_steps_since_the_last_checkpoint_and_nothing_else(
    slurm: Slurm, wish: Wish, whole: dict[int, float]
) -> None:
    cut(slurm, wish, "felled")
    folder = wish.folder / "felled"
    with slurm.fallen(2):
        slurm.ask("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        until(
            lambda: "PENDING" in slurm.ask("squeue", "--noheader", "--format=%T"), "its return to the queue"
        )
    assert halves(slurm, folder)[-1] == 0, told(folder)
    assert losses(folder) == whole
    first = json.loads((folder / "attempts.jsonl").read_text().splitlines()[-1])
    assert first["saved_before"] >= 5, "it did not go on from a checkpoint"


@cluster
def test_machines_that_are_not_fit_start_no_rank_and_are_not_given_again(slurm: Slurm, wish: Wish) -> None:
    folder, place = wish.folder / "unfit", wish.cluster("slurm", nodes=2, lines=["#SBATCH --hold"])
    model = Path(shutil.copytree(TINY, wish.folder / "model"))
    temper(slurm, "submit", str(wish.run("unfit")), "--on", str(place), "--set", f"model.path={model}")
    # It was there when the run was submitted, and is not when the job starts.
    shutil.rmtree(model)
    slurm.ask("scontrol", "release", json.loads((folder / "submission.json").read_text())["job"])
    until(ended(slurm, folder), "the end", folder / "submissions" / "1", 200)
    said = verdict(folder)
    assert said["exit_code"] == 3, told(folder)
    assert re.match(
        rf"No ranks were started. node 0 \(n1\): {model} cannot be read: .* \(1 more above\)",
        said["sentence"],
    )
    assert f"node 1 (n2): {model} cannot be read" in told(folder)
    assert "No ranks were started" in temper(slurm, "status", str(folder))
    assert not (folder / "metrics.jsonl").exists() and not list(folder.glob("nodes/*/node-*.json"))
    assert slurm.ask("squeue", "--noheader", "--states=PENDING,RUNNING") == ""
