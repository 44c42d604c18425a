"""A run that was rehearsed is the run that was not, to the last bit; one that cannot be had says so before step 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dist

STEPS = {"steps": 3, "global_batch": 4, "micro_batch": 1, "learning_rate": 2e-3, "warmup_steps": 1}
PHRASES = {"none": "one rank", "ddp": "ddp over", "fsdp2": "FSDP2 over"}
SLOW = pytest.mark.slow

CASES = [
    pytest.param("none", "full", {}, {}, id="none"),
    pytest.param("ddp", "lora", {}, {}, id="ddp-lora", marks=SLOW),
    pytest.param("zero1", "full", {}, {}, id="zero1", marks=SLOW),
    pytest.param("zero2", "full", {}, {}, id="zero2"),
    pytest.param("zero2", "full", {"optimizer": "adamw_8bit"}, {}, id="zero2-8bit", marks=SLOW),
    pytest.param("zero2", "full", {}, {"offload_optimizer": True}, id="zero2-offload", marks=SLOW),
    pytest.param("zero3", "qlora", {}, {}, id="zero3-qlora", marks=SLOW),
    pytest.param(
        "zero3", "full", {}, {"offload_optimizer": True, "offload_parameters": True}, id="zero3-offload", marks=SLOW
    ),
    pytest.param("fsdp2", "full", {}, {}, id="fsdp2", marks=SLOW),
    pytest.param("none", "qlora", {"optimizer": "paged_adamw_8bit"}, {}, id="none-qlora-8bit", marks=SLOW),
    pytest.param("none", "full", {"optimizer": "adafactor"}, {}, id="none-adafactor", marks=SLOW),
    pytest.param("none", "full", {"global_batch": 2, "micro_batch": 2}, {}, id="none-one-batch", marks=SLOW),
]


def event(records: list[dict[str, Any]]) -> dict[str, Any]:
    found = [record for record in records if record.get("event") == "rehearsal"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("strategy", "kind", "train", "parallel"), CASES)
def test_rehearsed_run_has_the_same_bits(
    strategy: str,
    kind: str,
    train: dict[str, Any],
    parallel: dict[str, Any],
    wish: Callable[..., Path],
    launch: Callable,
) -> None:
    def sections(rehearse: str) -> dict[str, dict[str, Any]]:
        place = {"strategy": strategy, "processes": 1 if strategy == "none" else 2, **parallel}
        return {
            "train": STEPS | train | {"rehearse": rehearse},
            "adapter": {"kind": kind, **({} if kind == "full" else {"dropout": 0.1})},
            "parallel": {"device": "cpu", "threads": 1, **place},
        }

    plain = launch(wish("plain", **sections("never")))
    assert plain.exit_code == 0, plain.output
    assert not any(record.get("event") == "rehearsal" for record in plain.records)
    rehearsed = launch(wish("rehearsed", **sections("always")))
    assert rehearsed.exit_code == 0, rehearsed.output
    stage = strategy.replace("zero", "ZeRO-")
    assert rehearsed.facts["strategy"].startswith(PHRASES.get(strategy, stage))
    assert rehearsed.losses == plain.losses and len(plain.losses) == 3
    norms = [[r["grad_norm"] for r in ended.records if "loss" in r] for ended in (rehearsed, plain)]
    assert norms[0] == norms[1]
    result = "model/model.safetensors" if kind == "full" else "adapter/adapter_model.safetensors"
    assert (rehearsed.folder / result).read_bytes() == (plain.folder / result).read_bytes()
    told = event(rehearsed.records)
    assert set(told["peak_mb"]) == {"forward and backward", "optimizer step", "save"}
    assert told["checkpoint_mb"] > 0 and told["seconds"] >= sum(told["took_seconds"].values()) * 0.99
    assert "rehearsal: the worst case took" in rehearsed.output
    assert not (rehearsed.folder / "rehearsal").exists()
    saved = json.loads((rehearsed.folder / "checkpoints" / "step-000003" / "manifest.json").read_text())
    size = sum(file["bytes"] for file in saved["files"].values()) / 2**20
    assert told["checkpoint_mb"] == pytest.approx(size, rel=0.05)
