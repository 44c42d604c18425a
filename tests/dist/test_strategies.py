"""The strategy changes where numbers live, not what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from engine.heartbeat import STEP_PHASES

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
    check_performance(ended, processes)
    return ended


def check_performance(ended: Any, processes: int) -> None:
    """The card tells of this very run: every second of its steps has a phase, and speeds are tokens over time."""
    card, last = ended.performance, ended.records[-1]
    assert card["ranks"] == processes and card["device"] == "cpu" and card["mfu"] is None
    assert (card["first_step"], card["last_step"]) == (1, last["step"])
    seconds = card["seconds"]
    in_steps = sum(seconds.values()) - seconds["save"] - seconds["validate"] - seconds["evaluate"]
    assert in_steps == pytest.approx(last["seconds"], rel=0.1, abs=0.1)
    assert 0 < seconds["first step"] < in_steps and min(seconds["forward"], seconds["backward"]) > 0
    later = sum(seconds[phase] for phase in STEP_PHASES)
    tokens = sum(record["tokens"] for record in ended.records[1:])
    assert card["tokens_per_second"] == pytest.approx(tokens / later, rel=1e-6)
    assert card["trained_tokens_per_second"] < card["tokens_per_second"]
    # What a hand counts of the small model: two layers, and a head that is the embedding.
    layer = 128 * (128 + 64 + 64 + 128) + 3 * 128 * 256
    if ended.facts["adapter"] == "full":
        assert card["flops_per_token"]["6N"] > 6 * (2 * layer + 448 * 128)
        assert card["flops_per_token"]["6N"] == card["flops_per_token"]["4N"] > card["flops_per_token"]["needed"]
    else:
        assert card["flops_per_token"]["6N"] > card["flops_per_token"]["4N"] > 4 * (2 * layer + 448 * 128)
    assert 0 < card["ceiling_share"] < 1 and 0.5 < card["packing"] <= 1
    saved = [line["save_ms"] for line in ended.lines if line.get("event") == "save"]
    assert card["saves"]["count"] == len(saved) == 1
    assert card["saves"]["mean_ms"] == pytest.approx(saved[0], abs=0.1)
    assert all(line in ended.output for line in card["summary"])


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
    plain = 448 * 128 + 2 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256) + 5 * 128
    assert ended.facts["parameters"] - ended.facts["trained_parameters"] == plain, "packed words are no weights"
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
