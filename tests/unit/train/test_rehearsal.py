"""What is said when memory runs out in a rehearsal, and what a micro-batch can be at its largest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine import protocol
from engine.config import Run
from engine.dist import World
from engine.train.gauge import Gauge, ran_out
from engine.train.rehearsal import too_large

GIB = 2**30
WORLD = World(1, 2, 1, torch.device("cpu"), None, None)  # type: ignore[arg-type]


def wish(folder: Path, **train: Any) -> Run:
    return Run.model_validate(
        {
            "output": str(folder),
            "model": {"path": "x"},
            "data": {"train": [{"path": "x"}], "max_length": 4096},
            "train": {"global_batch": 24, **train},
            "parallel": {"strategy": "zero2", "processes": 2},
        }
    )


def plan(folder: Path, *changes: tuple[str, int], total: int = 60) -> None:
    terms = {"weights": 10 * GIB, "activations": 30 * GIB}
    lighter = tuple(protocol.Lighter(words, size * GIB) for words, size in changes)
    protocol.write_prediction(folder, protocol.Prediction(40 * GIB, "loss", terms, total * GIB, lighter))


def test_out_of_memory_names_when_what_and_the_mildest_change_that_fits(tmp_path: Path) -> None:
    plan(tmp_path, ("--set train.micro_batch=4", 50), ("--set train.micro_batch=2", 45), ("--set a=b", 20))
    error = too_large(wish(tmp_path, micro_batch=12), WORLD, "forward and backward", 48 * GIB)
    assert error.exit_code == 3
    assert (
        "rank 1 ran out of memory in the rehearsal's forward and backward, on a device of 48.0 GiB"
        in error.what
    )
    assert "activations: 30.0 GiB of the 40.0 GiB" in error.what
    assert "--set train.micro_batch=2 (45.0 GiB" in error.fix


def test_a_plan_that_was_too_small_is_not_believed_for_its_changes_either(tmp_path: Path) -> None:
    """Planned to need 40 GiB of 48 and out of memory all the same: 42 would not have been enough for half of it."""
    plan(tmp_path, ("--set train.micro_batch=4", 42), ("--set train.micro_batch=2", 30), total=40)
    error = too_large(wish(tmp_path, micro_batch=12), WORLD, "optimizer step", 48 * GIB)
    assert "--set train.micro_batch=2" in error.fix
    plan(tmp_path, ("--set train.micro_batch=4", 42), total=40)
    error = too_large(wish(tmp_path, micro_batch=12), WORLD, "optimizer step", 48 * GIB)
    assert "no change of a setting or two is planned to fit" in error.fix and "max_length 4096" in error.fix


@pytest.mark.parametrize(
    ("act", "train", "blamed", "fix"),
    [
        ("forward and backward", {"micro_batch": 6}, "logits of 6 rows x 4096 tokens", "micro_batch=3"),
        ("forward and backward", {"micro_batch": 4}, "logits of 4 rows x 4096 tokens", "micro_batch=2"),
        ("optimizer step", {"micro_batch": 1}, "the state of adamw", "activation_checkpointing=true"),
        ("evaluation", {}, "keys and values of", "evaluate.batch="),
    ],
)
def test_without_a_plan_the_part_itself_says_what_to_lower(
    act: str, train: dict[str, Any], blamed: str, fix: str, tmp_path: Path
) -> None:
    error = too_large(wish(tmp_path, **train), WORLD, act, 0)
    assert blamed in error.what and fix in error.fix


def test_a_prediction_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    protocol.write_json(tmp_path / protocol.PLAN, {"size": 1, "phase": "loss", "terms": {"weights": 1}})
    assert protocol.read_prediction(tmp_path) == protocol.Prediction(1, "loss", {"weights": 1})


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 60, dtype=torch.int8)
    assert ran_out(full.value) and ran_out(MemoryError()) and ran_out(torch.OutOfMemoryError("x"))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) + torch.ones(3)
    assert not ran_out(other.value) and not ran_out(ValueError("out of memory"))


def test_a_peak_is_that_of_its_own_part() -> None:
    gauge = Gauge(torch.device("cpu"), 1)
    gauge.reset()
    torch.ones(64 * 2**20 // 4).sum()
    high = gauge.peak()
    gauge.reset()
    low = gauge.peak()
    assert high - low > 32 * 2**20
    assert gauge.headroom(high + GIB) < gauge.headroom(low) - GIB // 2
