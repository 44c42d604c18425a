"""A run that was killed and started again is the run that was not, to the last bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.dist, pytest.mark.faults]

STEPS = {"steps": 8, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 2}
SAVES = {"every": 3, "keep_last": 2}


def kill_all(family: list[psutil.Process]) -> None:
    for process in family:
        process.kill()


def ask_launcher(family: list[psutil.Process]) -> None:
    family[0].send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("strategy", "kind"), [("none", "full"), ("zero2", "full"), ("zero3", "qlora")], ids=lambda value: value
)
def test_killed_run_continues_with_the_same_bits(
    strategy: str, kind: str, wish: Callable[..., Path], launch: Callable, interrupt: Callable
) -> None:
    sections = {
        "train": STEPS,
        "checkpoint": SAVES,
        "adapter": {"kind": kind, "dropout": 0.1},
        "parallel": {
            "device": "cpu",
            "threads": 1,
            "strategy": strategy,
            "processes": 1 if strategy == "none" else 2,
        },
    }
    whole = launch(wish("whole", **sections))
    assert whole.exit_code == 0, whole.output
    cut = wish("cut", **sections)
    interrupt(cut, 5, kill_all)
    steps = [
        json.loads((p / "manifest.json").read_text())["step"]
        for p in (cut.with_suffix("") / "checkpoints").glob("step-??????")
    ]
    assert max(steps) == 3 or max(steps) == 6
    ended = launch(cut)
    assert ended.exit_code == 0, ended.output
    assert f"resumed at step {max(steps)} of 8" in ended.output
    assert ended.losses == whole.losses
    assert [r["grad_norm"] for r in ended.records] == [r["grad_norm"] for r in whole.records]
    result = "model/model.safetensors" if kind == "full" else "adapter/adapter_model.safetensors"
    assert (ended.folder / result).read_bytes() == (whole.folder / result).read_bytes()


def test_sigterm_saves_at_a_step_border_and_a_second_start_finishes(
    wish: Callable[..., Path], launch: Callable, interrupt: Callable
) -> None:
    parallel = {"device": "cpu", "threads": 1, "strategy": "zero2", "processes": 2}
    run_file = wish("asked", train=STEPS | {"steps": 60}, parallel=parallel)
    stopped = interrupt(run_file, 2, ask_launcher)
    outcome = json.loads((stopped.folder / "outcome.json").read_text())
    assert outcome["status"] == "preempted"
    assert 2 <= outcome["step"] < 60
    assert (stopped.folder / "checkpoints" / f"step-{outcome['step']:06d}" / "manifest.json").is_file()
    ended = launch(run_file)
    assert ended.exit_code == 0, ended.output
    assert f"resumed at step {outcome['step']} of 60" in ended.output
    assert json.loads((ended.folder / "outcome.json").read_text())["status"] == "finished"
    assert sorted(ended.losses) == list(range(1, 61))


def test_another_world_size_is_refused_with_the_one_that_works(
    wish: Callable[..., Path], launch: Callable
) -> None:
    first = {"device": "cpu", "threads": 1, "strategy": "ddp", "processes": 2}
    assert launch(wish("moved", train=STEPS | {"steps": 2}, parallel=first)).exit_code == 0
    refused = launch(wish("moved", train=STEPS, parallel=first | {"processes": 1}))
    assert "was written by 2 ranks and this run has 1" in refused.output
    assert "Traceback" not in refused.output.split("was written by")[0]
    crash = json.loads((refused.folder / "crash" / "rank-0.json").read_text())
    assert crash["exit_code"] == 2
