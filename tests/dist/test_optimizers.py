"""Lion and rates by layer under several strategies: the same run, and the same again after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist

TRAIN = {
    "steps": 6,
    "global_batch": 4,
    "micro_batch": 1,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "optimizer": "lion",
    "weight_decay": 0.1,
    "layer_decay": 0.8,
    "learning_rate_factors": {"embed_tokens": 0.5},
}


def sections(strategy: str, ranks: int, steps: int = 6) -> dict:
    parallel = {"device": "cpu", "threads": 1, "strategy": strategy, "processes": ranks, "precision": "fp32"}
    return {"train": TRAIN | {"steps": steps}, "parallel": parallel}


def test_lion_and_layer_rates_are_the_same_under_zero2(wish: Callable[..., Path], launch: Callable) -> None:
    one = launch(wish("one", **sections("none", 1)))
    assert one.exit_code == 0, one.output
    two = launch(wish("two", **sections("zero2", 2)))
    assert two.exit_code == 0, two.output
    assert two.facts["strategy"].startswith("ZeRO-2 over 2 ranks")
    assert two.losses == pytest.approx(one.losses, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_muon_is_the_same_on_two_ranks_and_after_a_stop(
    kind: str, wish: Callable[..., Path], launch: Callable
) -> None:
    def muon(strategy: str, ranks: int, steps: int) -> dict:
        made = sections(strategy, ranks, steps)
        made["train"] = made["train"] | {"optimizer": "muon", "learning_rate_factors": {}, "rehearse": "always"}
        return made | {"adapter": {"kind": kind}}

    one = launch(wish("one", **muon("none", 1, 6)))
    assert one.exit_code == 0, one.output
    there = launch(wish("there", **muon("ddp", 2, 6)))
    assert there.exit_code == 0, there.output
    assert there.facts["strategy"].startswith("ddp over 2 ranks")
    assert there.losses == pytest.approx(one.losses, rel=1e-3)
    assert launch(wish("moved", **muon("none", 1, 3))).exit_code == 0
    again = launch(wish("moved", **muon("none", 1, 6)))
    assert "resumed at step 3" in again.output and again.losses == one.losses
    refused = launch(wish("refused", **muon("zero2", 2, 6)))
    assert refused.exit_code != 0 and "needs whole" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero3"])
def test_lion_is_the_same_everywhere_and_moves(
    strategy: str, wish: Callable[..., Path], launch: Callable
) -> None:
    one = launch(wish("one", **sections("none", 1)))
    there = launch(wish("there", **sections(strategy, 2)))
    assert there.exit_code == 0, there.output
    assert there.facts["strategy"].lower().replace("-", "").startswith(strategy)
    assert there.losses == pytest.approx(one.losses, rel=1e-4)
    assert launch(wish("moved", **sections(strategy, 2, 3))).exit_code == 0
    moved = launch(wish("moved", **sections("none", 1)))
    assert moved.exit_code == 0, moved.output
    assert moved.losses == pytest.approx(one.losses, rel=1e-4)
