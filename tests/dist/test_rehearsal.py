"""A run that was rehearsed is the run that was not, to the last bit; one that cannot be had says so before step 1."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dist

STEPS = {"steps": 3, "global_batch": 4, "micro_batch": 1, "learning_rate": 2e-3, "warmup_steps": 1}
PHRASES = {"none": "one rank", "ddp": "ddp over", "fsdp2": "FSDP2 over"}
SLOW = pytest.mark.slow

CASES = [
    pytest.param("none", "full", {}, {}, id="none", marks=SLOW),
    pytest.param("ddp", "lora", {}, {}, id="ddp-lora", marks=SLOW),
    pytest.param("zero1", "full", {}, {}, id="zero1"),
    pytest.param("zero2", "full", {}, {}, id="zero2", marks=SLOW),
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
    assert not any(record.get("event") == "rehearsal" for record in plain.lines)
    rehearsed = launch(wish("rehearsed", **sections("always")))
    assert rehearsed.exit_code == 0, rehearsed.output
    stage = strategy.replace("zero", "ZeRO-")
    assert rehearsed.facts["strategy"].startswith(PHRASES.get(strategy, stage))
    assert rehearsed.losses == plain.losses and len(plain.losses) == 3
    norms = [[r["grad_norm"] for r in ended.records if "loss" in r] for ended in (rehearsed, plain)]
    assert norms[0] == norms[1]
    result = "model/model.safetensors" if kind == "full" else "adapter/adapter_model.safetensors"
    assert (rehearsed.folder / result).read_bytes() == (plain.folder / result).read_bytes()
    told = event(rehearsed.lines)
    assert set(told["peak_mb"]) == {"forward and backward", "optimizer step", "save"}
    assert told["checkpoint_mb"] > 0 and told["seconds"] >= sum(told["took_seconds"].values()) * 0.99
    assert "rehearsal: the worst case took" in rehearsed.output
    assert not (rehearsed.folder / "rehearsal").exists()
    saved = json.loads((rehearsed.folder / "checkpoints" / "step-000003" / "manifest.json").read_text())
    size = sum(file["bytes"] for file in saved["files"].values()) / 2**20
    assert told["checkpoint_mb"] == pytest.approx(size, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "zero3"])
def test_in_loop_generation_is_rehearsed_and_a_resumed_run_stays_exact(
    strategy: str, wish: Callable[..., Path], launch: Callable
) -> None:
    """Restarting rehearses again, before the checkpoint is put in: nothing of that may be seen either."""

    def sections(rehearse: str, steps: int) -> dict[str, dict[str, Any]]:
        return {
            "train": STEPS | {"steps": steps, "evaluate_every": 2, "rehearse": rehearse, "schedule": "constant"},
            "evaluate": {"benchmark": "basics", "in_loop_limit": 3, "max_new_tokens": 40, "batch": 2},
            "parallel": {
                "device": "cpu",
                "threads": 1,
                "strategy": strategy,
                "processes": 1 if strategy == "none" else 2,
            },
        }

    plain = launch(wish("plain", **sections("never", 4)))
    assert plain.exit_code == 0, plain.output
    assert launch(wish("cut", **sections("always", 2))).exit_code == 0
    ended = launch(wish("cut", **sections("always", 4)))
    assert ended.exit_code == 0 and "resumed at step 2 of 4" in ended.output, ended.output
    assert ended.facts["strategy"].startswith(PHRASES.get(strategy, strategy.replace("zero", "ZeRO-")))
    assert ended.losses == plain.losses
    told = [record for record in ended.lines if record.get("event") == "rehearsal"]
    assert len(told) == 2 and all("evaluation" in each["peak_mb"] for each in told)
    assert not (ended.folder / "evaluations" / "in-loop" / "step-000000").exists()


def alone(run_file: Path, *, address_space: int | None = None) -> subprocess.CompletedProcess[str]:
    """One rank without a launcher, under a limit of its address space."""

    def limit() -> None:
        if address_space:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

    argv = [sys.executable, "-m", "engine", "train", str(run_file)]
    return subprocess.run(argv, capture_output=True, text=True, preexec_fn=limit, timeout=240)


def test_memory_that_would_run_out_ends_the_run_before_step_1(wish: Callable[..., Path]) -> None:
    train = {"steps": 2, "global_batch": 4096, "micro_batch": 4096, "rehearse": "always"}
    ended = alone(wish("large", train=train), address_space=5 << 30)
    assert ended.returncode == 3, ended.stderr
    assert "ran out of memory in the rehearsal's forward and backward" in ended.stderr
    assert "4096 rows x 96 tokens" in ended.stderr and "--set train.micro_batch=2048" in ended.stderr
    assert "Traceback" not in ended.stderr and "step 1/" not in ended.stderr


def test_a_disk_with_room_for_one_checkpoint_of_three_is_refused(
    wish: Callable[..., Path], small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(14)
    file = wish("disk", train=STEPS | {"rehearse": "always"}, checkpoint={"every": 1})
    argv = [sys.executable, "-m", "engine", "train", str(file), "--set", f"output={disk / 'run'}"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 3, ended.stderr
    assert "the run keeps up to 3 checkpoints of" in ended.stderr and "are free" in ended.stderr
    assert not (disk / "run" / "rehearsal").exists()
    fits = subprocess.run([*argv, "--set", "checkpoint.every=0"], capture_output=True, text=True, timeout=240)
    assert fits.returncode == 0, fits.stderr
