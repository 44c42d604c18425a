"""Compiled layers and offloaded inputs on real ranks: the strategy and the graphs are there, the losses are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

BOTH = {"activation_checkpointing": True, "activation_offload": True, "compile": True}


def sections(strategy: str, processes: int, precision: str = "fp32") -> dict[str, dict[str, object]]:
    return {"parallel": {"strategy": strategy, "processes": processes, "precision": precision}}


@pytest.fixture()
def alone(wish: Callable[..., Path], launch: Callable) -> dict[int, float]:
    ended = launch(wish("alone", **sections("none", 1), train={"micro_batch": 2}))
    assert ended.exit_code == 0, ended.output
    assert ended.performance["compiled_graphs"] is None
    return ended.losses


@pytest.mark.parametrize("strategy", ["zero2", "fsdp2"])
def test_compiled_layers_on_two_ranks(
    strategy: str, alone: dict[int, float], wish: Callable[..., Path], launch: Callable
) -> None:
    there = launch(wish("there", **sections(strategy, 2), model=BOTH, train={"micro_batch": 2}))
    assert there.exit_code == 0, there.output
    assert there.facts["strategy"].lower().replace("-", "").startswith(strategy)
    assert 0 < there.performance["compiled_graphs"] <= 8 and "layers compiled to" in there.output
    assert there.losses == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "kind"), [("ddp", "full"), ("zero1", "full"), ("ddp", "lora"), ("zero2", "qlora"), ("fsdp2", "lora")]
)
@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_layers_under_other_strategies_and_a_resume(
    strategy: str, kind: str, recomputed: bool, wish: Callable[..., Path], launch: Callable
) -> None:
    precision = "bf16" if kind == "qlora" else "fp32"
    extra = {"adapter": {"kind": kind}, **sections(strategy, 2, precision)}
    model = {"compile": True, "activation_checkpointing": recomputed}
    steady = {"micro_batch": 1, "schedule": "constant"}
    plain = launch(wish("plain", **extra, train=steady))
    assert plain.exit_code == 0, plain.output
    whole = launch(wish("whole", **extra, model=model, train=steady))
    assert whole.exit_code == 0, whole.output
    assert whole.facts["strategy"].lower().replace("-", "").startswith(strategy)
    assert whole.performance["compiled_graphs"] > 0
    assert whole.losses == pytest.approx(plain.losses, rel=1e-2 if kind == "qlora" else 1e-5)
    assert launch(wish("cut", **extra, model=model, train=steady | {"steps": 3})).exit_code == 0
    cut = launch(wish("cut", **extra, model=model, train=steady))
    assert "resumed at step 3" in cut.output and cut.losses == whole.losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "qlora"])
def test_offloaded_inputs_under_zero3(kind: str, wish: Callable[..., Path], launch: Callable) -> None:
    extra = {"adapter": {"kind": kind}, **sections("zero3", 2, "bf16" if kind == "qlora" else "fp32")}
    kept = launch(wish("kept", **extra, model={"activation_checkpointing": True}))
    moved = launch(wish("moved", **extra, model={"activation_checkpointing": True, "activation_offload": True}))
    assert kept.exit_code == moved.exit_code == 0, kept.output + moved.output
    assert moved.facts["strategy"].startswith("ZeRO-3 over 2 ranks")
    assert moved.losses == kept.losses


@pytest.mark.parametrize(("strategy", "more"), [("zero2", {}), pytest.param("fsdp2", BOTH, marks=pytest.mark.slow)])
def test_products_in_eight_bits_on_two_ranks(
    strategy: str, more: dict[str, bool], wish: Callable[..., Path], launch: Callable
) -> None:
    pytest.importorskip("torchao")
    losses = {}
    for float8 in ("none", "rowwise_with_gw_hp"):
        there = sections(strategy, 2, "bf16")
        there["parallel"]["float8"] = float8
        ended = launch(wish(float8, **there, model=more))
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].lower().replace("-", "").startswith(strategy)
        assert ended.facts["float8_layers"] == (0 if float8 == "none" else 2 * 7)
        losses[float8] = ended.losses
    assert "float8: 14 linear layers, rowwise_with_gw_hp, emulated" in ended.output
    assert losses["none"] != losses[float8]
    assert losses["none"] == pytest.approx(losses[float8], rel=2e-2)
