"""Adapters over sharded weights: the losses of one rank, and a folder that PEFT opens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.config import VIRTUAL

pytestmark = [pytest.mark.dist, pytest.mark.slow]

KINDS: dict[str, dict[str, Any]] = {
    "dora": {"kind": "lora", "rank": 4, "dora": True},
    "pissa": {"kind": "lora", "rank": 4, "init": "pissa"},
    "olora": {"kind": "lora", "rank": 4, "init": "olora"},
    "ia3": {"kind": "ia3"},
    "vera": {"kind": "vera", "rank": 32},
    "oft": {"kind": "oft", "block_size": 16},
    "adalora": {
        "kind": "adalora",
        "rank": 4,
        "target_rank": 2,
        "budget_start": 0,
        "budget_end": 0.7,
        "budget_every": 1,
    },
    "prefix": {"kind": "prefix", "virtual_tokens": 6},
    "prompt": {"kind": "prompt", "virtual_tokens": 6},
    "ptuning": {"kind": "ptuning", "virtual_tokens": 6},
}


IN_FORCE = {
    "none": "one rank",
    "ddp": "ddp over 2 ranks",
    "zero1": "ZeRO-1 over 2 ranks",
    "zero2": "ZeRO-2 over 2 ranks",
    "zero3": "ZeRO-3 over 2 ranks",
    "fsdp2": "FSDP2 over 2 ranks",
}


def sections_of(name: str) -> dict[str, Any]:
    adapter = KINDS[name]
    return {"adapter": adapter, "data": {"packing": adapter["kind"] not in VIRTUAL}}


def logits(base: Path, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    ids = torch.randint(400, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -32:]


@pytest.mark.parametrize("name", KINDS)
def test_the_same_adapter_under_every_strategy(
    name: str, wish: Callable[..., Path], launch: Callable, small: Path
) -> None:
    ends = {}
    for strategy, in_force in IN_FORCE.items():
        parallel = {"strategy": strategy, "processes": 1 if strategy == "none" else 2, "precision": "fp32"}
        rate = 0.3 if name == "prefix" else 1e-2
        train = {"steps": 3, "global_batch": 4, "learning_rate": rate, "warmup_steps": 0}
        ended = launch(wish(f"{name}-{strategy}", **sections_of(name), parallel=parallel, train=train))
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].startswith(in_force)
        ends[strategy] = (ended.losses, logits(small / "model", ended.folder / "adapter"))
    losses, alone = ends.pop("none")
    assert losses[3] < losses[1], "nothing was learnt, so nothing is compared"
    for strategy, (others, opened) in ends.items():
        assert others == pytest.approx(losses, rel=1e-4), strategy
        torch.testing.assert_close(opened, alone, atol=5e-3, rtol=5e-3)


def test_shared_matrices_have_the_precision_of_compute(wish: Callable[..., Path], launch: Callable) -> None:
    losses = {}
    for strategy in ("none", "fsdp2"):
        parallel = {"strategy": strategy, "processes": 1 if strategy == "none" else 2, "precision": "bf16"}
        ended = launch(wish(f"vera-{strategy}", adapter=KINDS["vera"], parallel=parallel, train={"steps": 3}))
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].startswith(IN_FORCE[strategy])
        losses[strategy] = ended.losses
    assert losses["fsdp2"] == pytest.approx(losses["none"], rel=5e-3)


@pytest.mark.parametrize("name", KINDS)
def test_another_strategy_goes_on_where_one_stopped(
    name: str, wish: Callable[..., Path], launch: Callable, small: Path
) -> None:
    sections: dict[str, Any] = {
        **sections_of(name),
        "train": {"steps": 4, "global_batch": 4, "learning_rate": 1e-2, "warmup_steps": 0, "evaluate_every": 2},
        "checkpoint": {"every": 2, "keep_last": 3},
        "evaluate": {"benchmark": "basics", "in_loop_limit": 2, "max_new_tokens": 8},
    }
    ended = launch(wish("run", **sections, parallel={"strategy": "zero3", "processes": 2, "precision": "fp32"}))
    assert ended.exit_code == 0, ended.output
    assert ended.facts["strategy"].startswith(IN_FORCE["zero3"])
    assert {r["step"] for r in ended.records if "pass@1" in r} == {2, 4}, "a whole copy of it was judged"
    losses, adapter = ended.losses, ended.folder / "adapter"
    opened = logits(small / "model", adapter)
    shutil.rmtree(ended.folder / "checkpoints/step-000004")
    again = launch(wish("run", **sections, parallel={"strategy": "none", "processes": 1, "precision": "fp32"}))
    assert again.exit_code == 0, again.output
    assert "resumed at step 2 of 4" in again.output
    assert again.facts["strategy"] == IN_FORCE["none"]
    assert again.losses == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(logits(small / "model", adapter), opened, atol=5e-3, rtol=5e-3)


def test_new_tokens_over_two_ranks(wish: Callable[..., Path], launch: Callable, small: Path) -> None:
    losses = {}
    for strategy in ("none", "ddp", "zero1", "zero2"):
        ended = launch(
            wish(
                f"tokens-{strategy}",
                adapter={"kind": "lora", "rank": 4, "new_tokens": ["return x"]},
                parallel={"strategy": strategy, "processes": 1 if strategy == "none" else 2, "precision": "fp32"},
                train={"steps": 3, "global_batch": 4, "learning_rate": 1e-2, "warmup_steps": 0},
            )
        )
        assert ended.exit_code == 0, ended.output
        assert ended.facts["strategy"].startswith(IN_FORCE[strategy])
        losses[strategy] = ended.losses
        words = AutoTokenizer.from_pretrained(ended.folder / "adapter")
        assert "return x" in words.tokenize("    return x + 1")
        assert logits(small / "model", ended.folder / "adapter").isfinite().all()
    assert losses["none"][3] < losses["none"][1]
    for strategy, others in losses.items():
        assert others == pytest.approx(losses["none"], rel=1e-4), strategy
