"""Ranks that share rows come to the losses and gradients of ranks that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dist

IN_FORCE = {
    "none": "one rank",
    "ddp": "ddp over {} ranks (gloo)",
    "zero2": "ZeRO-2 over {} ranks (gloo)",
    "zero3": "ZeRO-3 over {} ranks (gloo)",
    "fsdp2": "FSDP2 over {} ranks (gloo)",
}
TRAIN = {"steps": 4, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 1}


@pytest.fixture()
def run(wish: Callable[..., Path], launch: Callable) -> Callable[..., Any]:
    """Train with a strategy over `ranks`, `sequence` of them a row; what was in force is asserted."""

    def start(name: str, strategy: str, ranks: int, sequence: int, **sections: dict[str, Any]) -> Any:
        parallel = {"device": "cpu", "threads": 1, "strategy": strategy, "processes": ranks}
        parallel |= {"sequence": sequence, "precision": "fp32"} | sections.pop("parallel", {})
        train = TRAIN | sections.pop("train", {})
        ended = launch(wish(name, parallel=parallel, train=train, **sections))
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].startswith(IN_FORCE[strategy].format(ranks))
        assert ended.facts["sequence"] == sequence
        assert ended.facts["attention"] == "by_sample"
        assert (f"{sequence} ranks a row" in ended.output) == (sequence > 1)
        return ended

    return start


def demand_same(one: Any, other: Any, *, loss: float = 1e-5, norm: float = 1e-4) -> None:
    """Losses, gradient norms and counts of tokens of every step."""
    assert one.losses == pytest.approx(other.losses, rel=loss) and len(one.losses) >= TRAIN["steps"]
    for name, most in (("grad_norm", norm), ("trained_tokens", 0), ("tokens", 0)):
        values = [[r[name] for r in ended.records if name in r] for ended in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=most, abs=0), name


def test_two_ranks_share_a_row_under_zero2(run: Callable[..., Any]) -> None:
    whole = run("whole", "none", 1, 1)
    assert whole.losses[4] < whole.losses[1] * 0.97, "nothing was learnt, so nothing is compared"
    demand_same(run("shared", "zero2", 2, 2), whole)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero3", "fsdp2"])
def test_every_other_strategy(strategy: str, run: Callable[..., Any]) -> None:
    demand_same(run("shared", strategy, 2, 2), run("whole", "none", 1, 1))


@pytest.mark.slow
def test_two_groups_of_two(run: Callable[..., Any]) -> None:
    """With validation, several micro-batches, and rows that end anywhere: no length is a multiple of anything."""
    data = {"validation_fraction": 0.1, "max_length": 93}
    train = {"global_batch": 8, "micro_batch": 2, "validate_every": 2}
    whole = run("whole", "none", 1, 1, data=data, train=train)
    shared = run("shared", "zero2", 4, 2, data=data, train=train)
    demand_same(shared, whole)
    held = [[r["validation_loss"] for r in one.records if "validation_loss" in r] for one in (shared, whole)]
    assert len(held[0]) == 2 and held[0] == pytest.approx(held[1], rel=1e-5)


WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "unpacked": {"data": {"packing": False}, "train": {"micro_batch": 2}},
    "loss from logits": {"train": {"chunked_loss": False}},
    "recomputed": {"model": {"activation_checkpointing": True}, "parallel": {"strategy": "zero3"}},
    "lora": {"adapter": {"kind": "lora", "rank": 4}, "train": {"learning_rate": 1e-2}},
    "qlora": {"adapter": {"kind": "qlora", "rank": 4}, "train": {"learning_rate": 1e-2}},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_other_way(way: str, run: Callable[..., Any], small: Path) -> None:
    sections = {name: dict(values) for name, values in WAYS[way].items()}
    strategy = sections.pop("parallel", {}).get("strategy", "ddp")
    if "model" in sections:
        sections["model"] |= {"path": str(small / "model")}
    whole = run("whole", "none", 1, 1, **{name: dict(values) for name, values in sections.items()})
    shared = run("shared", strategy, 2, 2, **sections)
    demand_same(shared, whole)
    assert shared.facts["loss"] == whole.facts["loss"]


@pytest.mark.slow
def test_in_bf16_as_close_as_other_strategies(run: Callable[..., Any]) -> None:
    bf16 = {"parallel": {"precision": "bf16"}}
    whole, shared = run("whole", "none", 1, 1, **bf16), run("shared", "zero3", 2, 2, **bf16)
    assert shared.losses == pytest.approx(whole.losses, rel=2e-3)


@pytest.mark.slow
def test_a_run_goes_on_when_rows_are_no_longer_shared(run: Callable[..., Any]) -> None:
    train = {"steps": 6, "schedule": "constant"}
    whole = run("whole", "none", 1, 1, train=train)
    assert run("moved", "zero2", 2, 2, train=train | {"steps": 3}).losses.keys() == {1, 2, 3}
    moved = run("moved", "ddp", 2, 1, train=train)
    assert "resumed at step 3 of 6" in moved.output
    assert moved.losses == pytest.approx(whole.losses, rel=2e-5)


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_bits(run: Callable[..., Any]) -> None:
    """With dropout, which is drawn apart on each part of a row."""
    sections = {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}, "checkpoint": {"every": 2}}
    train = {"schedule": "constant", "learning_rate": 1e-2}
    whole = run("whole", "zero3", 2, 2, train=train, **sections)
    run("cut", "zero3", 2, 2, train=train | {"steps": 2}, **sections)
    ended = run("cut", "zero3", 2, 2, train=train, **sections)
    assert "resumed at step 2 of 4" in ended.output and ended.losses == whole.losses
    result = "adapter/adapter_model.safetensors"
    assert (ended.folder / result).read_bytes() == (whole.folder / result).read_bytes()
