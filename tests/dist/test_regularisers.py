"""Noise and smoothing do not depend on how a step is cut; a step that is not finite changes nothing when asked so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist

TRAIN = {"steps": 5, "global_batch": 4, "neftune_alpha": 15.0, "label_smoothing": 0.1}


def sections(strategy: str, ranks: int, *, precision: str = "fp32", **train: object) -> dict:
    parallel = {"device": "cpu", "threads": 1, "strategy": strategy, "processes": ranks, "precision": precision}
    return {"train": TRAIN | train, "parallel": parallel}


def stored(kind: str) -> dict:
    """A 4-bit base is sharded as 16-bit words."""
    return {"precision": "bf16"} if kind == "qlora" else {}


def test_noise_is_the_same_on_two_ranks_and_in_other_micro_batches(
    wish: Callable[..., Path], launch: Callable
) -> None:
    one = launch(wish("one", **sections("none", 1, micro_batch=4)))
    assert one.exit_code == 0, one.output
    two = launch(wish("two", **sections("zero2", 2, micro_batch=1)))
    assert two.exit_code == 0, two.output
    assert two.facts["strategy"].startswith("ZeRO-2 over 2 ranks")
    assert two.losses == pytest.approx(one.losses, rel=1e-5)
    plain = launch(wish("plain", **sections("none", 1, micro_batch=4, neftune_alpha=0.0)))
    assert all(abs(plain.losses[step] - one.losses[step]) > 1e-4 for step in one.losses)


def test_moving_against_samples_is_the_same_on_two_ranks_and_in_other_micro_batches(
    wish: Callable[..., Path], launch: Callable
) -> None:
    wild = {"adversarial_epsilon": 0.5, "neftune_alpha": 0.0}
    one = launch(wish("one", **sections("none", 1, micro_batch=4, **wild)))
    assert one.exit_code == 0, one.output
    two = launch(wish("two", **sections("zero2", 2, micro_batch=1, **wild)))
    assert two.exit_code == 0, two.output
    assert two.facts["strategy"].startswith("ZeRO-2 over 2 ranks")
    assert two.losses == pytest.approx(one.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "kind"), [("zero1", "full"), ("zero3", "full"), ("fsdp2", "full"), ("ddp", "lora"), ("zero3", "qlora")]
)
def test_moving_against_samples_under_other_strategies_and_a_resume(
    strategy: str, kind: str, wish: Callable[..., Path], launch: Callable
) -> None:
    wild = {"adversarial_epsilon": 0.5, "neftune_alpha": 0.0, "schedule": "constant"} | stored(kind)
    extra = {"adapter": {"kind": kind}, "model": {"activation_checkpointing": True}}
    one = launch(wish("one", **sections("none", 1, micro_batch=2, **wild), **extra))
    assert one.exit_code == 0, one.output
    there = launch(wish("there", **sections(strategy, 2, rehearse="always", **wild), **extra))
    assert there.exit_code == 0, there.output
    assert there.facts["strategy"].lower().replace("-", "").startswith(strategy)
    assert there.losses == pytest.approx(one.losses, rel=1e-2 if kind == "qlora" else 1e-4)
    assert launch(wish("cut", **sections(strategy, 2, steps=2, **wild), **extra)).exit_code == 0
    cut = launch(wish("cut", **sections(strategy, 2, **wild), **extra))
    assert "resumed at step 2" in cut.output and cut.losses == there.losses


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "kind"), [("zero3", "full"), ("fsdp2", "lora"), ("zero3", "qlora"), ("ddp", "full")])
def test_noise_under_other_strategies_and_a_resume(
    strategy: str, kind: str, wish: Callable[..., Path], launch: Callable
) -> None:
    extra = {"adapter": {"kind": kind}, "model": {"activation_checkpointing": True}}
    one = launch(wish("one", **sections("none", 1, micro_batch=2, **stored(kind)), **extra))
    assert one.exit_code == 0, one.output
    there = launch(wish("there", **sections(strategy, 2, **stored(kind)), **extra))
    assert there.exit_code == 0, there.output
    assert there.facts["strategy"].lower().replace("-", "").startswith(strategy)
    assert there.losses == pytest.approx(one.losses, rel=1e-2 if kind == "qlora" else 1e-5)
    assert launch(wish("cut", **sections(strategy, 2, steps=2, schedule="constant", **stored(kind)), **extra)).exit_code == 0
    whole = launch(wish("whole", **sections(strategy, 2, schedule="constant", **stored(kind)), **extra))
    cut = launch(wish("cut", **sections(strategy, 2, schedule="constant", **stored(kind)), **extra))
    assert "resumed at step 2" in cut.output and cut.losses == whole.losses


def test_steps_without_finite_gradients_are_dropped_until_there_are_too_many(
    wish: Callable[..., Path], launch: Callable
) -> None:
    wild = {"steps": 40, "learning_rate": 1e6, "weight_decay": 1.0, "clip_norm": 0, "non_finite": "skip"}
    ended = launch(wish("wild", **sections("ddp", 2, **wild)))
    assert ended.exit_code != 0
    assert ended.facts["strategy"] == "ddp over 2 ranks (gloo)"
    dropped = [line for line in ended.lines if line.get("event") == "dropped"]
    assert len(dropped) == 9 and all(line["samples"] for line in dropped)
    assert "changes nothing; from row-" in ended.output and "gradient norm of step" in ended.output
