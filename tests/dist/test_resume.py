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
    ("strategy", "kind"), [("none", "full"), ("zero1", "full"), ("zero2", "full"), ("zero3", "qlora")], ids=lambda value: value
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
    assert (ended.performance["first_step"], ended.performance["last_step"]) == (max(steps) + 1, 8)
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


MOVES = [
    ("zero2", 2, "zero2", 1, "full", "fp32"),
    ("zero3", 2, "zero3", 3, "full", "fp32"),
    ("zero3", 2, "fsdp2", 2, "full", "fp32"),
    ("ddp", 2, "zero3", 2, "qlora", "bf16"),
    # In bf16 DeepSpeed has another optimizer for stage 1.
    ("zero1", 2, "zero2", 2, "full", "bf16"),
    ("ddp", 2, "zero1", 2, "full", "bf16"),
]


@pytest.mark.parametrize(("then", "ranks_then", "now", "ranks_now", "kind", "precision"), MOVES)
def test_other_ranks_and_strategies_continue_the_same_run(
    then: str,
    ranks_then: int,
    now: str,
    ranks_now: int,
    kind: str,
    precision: str,
    wish: Callable[..., Path],
    launch: Callable,
) -> None:
    """In fp32 nothing hides behind rounding: a moment lost or misplaced moves the loss by far more."""

    def sections(strategy: str, ranks: int, steps: int) -> dict:
        parallel = {"device": "cpu", "threads": 1, "strategy": strategy, "processes": ranks}
        return {
            "train": STEPS | {"steps": steps, "global_batch": 6, "micro_batch": 1, "schedule": "constant"},
            "parallel": parallel | {"precision": precision},
            "adapter": {"kind": kind, "dropout": 0.0},
        }

    whole = launch(wish("whole", **sections(then, ranks_then, 10)))
    assert whole.exit_code == 0, whole.output
    first = launch(wish("moved", **sections(then, ranks_then, 5)))
    assert first.exit_code == 0, first.output
    moved = launch(wish("moved", **sections(now, ranks_now, 10)))
    assert moved.exit_code == 0, moved.output
    assert f"was written by {then} on {ranks_then} ranks and goes on with {now} on {ranks_now}" in moved.output
    assert moved.facts["strategy"].lower().replace("-", "").startswith(now)
    assert moved.facts["world_size"] == ranks_now
    assert moved.losses == pytest.approx(whole.losses, rel=2e-2 if precision == "bf16" else 2e-5)


def test_ranks_that_do_not_divide_the_batch_are_refused_with_those_that_do(
    wish: Callable[..., Path], launch: Callable
) -> None:
    first = {"device": "cpu", "threads": 1, "strategy": "ddp", "processes": 2}
    assert launch(wish("moved", train=STEPS | {"steps": 2}, parallel=first)).exit_code == 0
    refused = launch(wish("moved", train=STEPS, parallel=first | {"processes": 3}))
    assert "not divisible by 3 ranks" in refused.output and "1, 2 or 4 ranks" in refused.output
    assert refused.exit_code != 0 and "resumed" not in refused.output


def test_state_in_blocks_resumes_on_the_same_ranks_and_is_refused_on_others(
    wish: Callable[..., Path], launch: Callable
) -> None:
    """8-bit AdamW shares scales between neighbours of a flat partition, so that only the same cut can be read."""

    def sections(ranks: int, steps: int) -> dict:
        parallel = {"device": "cpu", "threads": 1, "strategy": "zero2", "processes": ranks}
        train = STEPS | {"steps": steps, "optimizer": "adamw_8bit", "schedule": "constant"}
        return {"train": train, "parallel": parallel}

    whole = launch(wish("whole", **sections(2, 6)))
    assert whole.exit_code == 0, whole.output
    assert launch(wish("cut", **sections(2, 3))).exit_code == 0
    resumed = launch(wish("cut", **sections(2, 6)))
    assert "resumed at step 3 of 6" in resumed.output and resumed.losses == whole.losses
    refused = launch(wish("cut", **sections(1, 9)))
    assert refused.exit_code != 0 and "in blocks of elements" in refused.output


def test_fsdp2_saves_after_a_validation(wish: Callable[..., Path], launch: Callable, small: Path) -> None:
    """A validation leaves the outermost weights gathered."""
    data = {"validation_fraction": 0.1}
    parallel = {"device": "cpu", "threads": 1, "strategy": "fsdp2", "processes": 2}
    ended = launch(
        wish("seen", train=STEPS | {"steps": 4, "validate_every": 2}, data=data, parallel=parallel, checkpoint={"every": 2})
    )
    assert ended.exit_code == 0, ended.output
    assert [r["step"] for r in ended.records if "validation_loss" in r] == [2, 4]
