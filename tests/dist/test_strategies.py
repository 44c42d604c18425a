"""The strategy changes where numbers live, not what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.dist

IN_FORCE = {
    "none": "one rank",
    "ddp": "ddp over 2 ranks (gloo)",
    "zero1": "ZeRO-1 over 2 ranks (gloo), 50% of optimizer state here",
    "zero2": "ZeRO-2 over 2 ranks (gloo), 50% of optimizer state here",
    "zero3": "ZeRO-3 over 2 ranks (gloo), 50% of weights here",
    "fsdp2": "FSDP2 over 2 ranks (gloo), 50% of weights here",
}


def run(strategy: str, precision: str, wish: Callable[..., Path], launch: Callable, **sections: dict):
    name = f"{strategy}-{precision}"
    processes = 1 if strategy == "none" else 2
    parallel = {"strategy": strategy, "processes": processes, "precision": precision}
    ended = launch(wish(name, parallel={"device": "cpu", "threads": 1, **parallel}, **sections))
    assert ended.exit_code == 0, ended.output
    assert ended.facts["strategy"] == IN_FORCE[strategy]
    assert ended.facts["world_size"] == processes
    return ended


def test_same_losses_under_every_strategy_in_fp32(wish: Callable[..., Path], launch: Callable) -> None:
    reference = run("none", "fp32", wish, launch)
    assert reference.losses[6] < reference.losses[1] * 0.95, "nothing was learnt, so nothing is compared"
    for strategy in ("ddp", "zero1", "zero2", "zero3", "fsdp2"):
        losses = run(strategy, "fp32", wish, launch).losses
        assert losses == pytest.approx(reference.losses, rel=1e-5), strategy
        # Tokens are counted alike as well, and the result opens as transformers takes it.
        assert len(losses) == 6


def test_same_losses_in_bf16_and_a_result_that_opens(wish: Callable[..., Path], launch: Callable) -> None:
    reference = run("none", "bf16", wish, launch)
    ended = run("zero3", "bf16", wish, launch)
    assert ended.losses == pytest.approx(reference.losses, rel=1e-3)
    one = AutoModelForCausalLM.from_pretrained(ended.folder / "model").state_dict()
    other = AutoModelForCausalLM.from_pretrained(reference.folder / "model").state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor.float() - other[name].float()).abs().max() < 0.02, name


def test_micro_batches_do_not_change_the_gradient(wish: Callable[..., Path], launch: Callable) -> None:
    whole = run(
        "ddp",
        "fp32",
        wish,
        launch,
        train={"steps": 3, "global_batch": 8, "micro_batch": 4, "learning_rate": 2e-3},
    )
    cut = run(
        "zero2",
        "fp32",
        wish,
        launch,
        train={"steps": 3, "global_batch": 8, "micro_batch": 1, "learning_rate": 2e-3},
    )
    norms = [[r["grad_norm"] for r in ended.records] for ended in (whole, cut)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert whole.losses == pytest.approx(cut.losses, rel=1e-5)


def test_qlora_is_sharded_and_saves_the_adapter_only(wish: Callable[..., Path], launch: Callable) -> None:
    from safetensors import safe_open

    adapter = {"kind": "qlora", "rank": 8, "alpha": 16}
    ended = run(
        "zero3",
        "bf16",
        wish,
        launch,
        adapter=adapter,
        train={"steps": 8, "global_batch": 4, "learning_rate": 1e-2},
    )
    assert ended.facts["adapter"] == "qlora"
    assert ended.facts["trained_parameters"] < ended.facts["parameters"] / 2
    assert ended.losses[8] < ended.losses[1]
    with safe_open(ended.folder / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        names = list(file.keys())
        assert names and all("lora_" in name for name in names)
        assert any(file.get_tensor(name).abs().sum() > 0 for name in names if "lora_B" in name)
    other = run(
        "zero2",
        "bf16",
        wish,
        launch,
        adapter=adapter,
        train={"steps": 8, "global_batch": 4, "learning_rate": 1e-2},
    )
    assert ended.losses == pytest.approx(other.losses, rel=2e-3)
