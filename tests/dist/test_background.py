"""Saves in the background: the run that waits for none of them is the run that does, and loses none of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.dist

STEPS = {"steps": 8, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 2}
SLOW = pytest.mark.slow


def sections(strategy: str, kind: str, *, background: bool, steps: int = 8, every: int = 3) -> dict[str, dict]:
    return {
        "train": STEPS | {"steps": steps},
        "adapter": {"kind": kind, "dropout": 0.1} if kind != "full" else {"kind": kind},
        "checkpoint": {"every": every, "keep_last": 9, "background": background},
        "parallel": {
            "device": "cpu",
            "threads": 1,
            "strategy": strategy,
            "processes": 1 if strategy == "none" else 2,
        },
    }


def contents(checkpoint: Path) -> dict[str, object]:
    """What a checkpoint holds, by name: the weights others load, and each rank's pieces."""
    (file,) = (checkpoint / "weights").glob("*.safetensors")
    found: dict[str, object] = dict(load_file(file))
    for state in (checkpoint / "state").glob("*.pt"):
        for name, start, master, kept in torch.load(state, weights_only=True)["pieces"]:
            found[f"{state.name}/{name}/{start}"] = master
            found |= {f"{state.name}/{name}/{start}/{key}": value for key, value in kept.items()}
    return found


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        pytest.param("zero2", "full", id="zero2"),
        pytest.param("none", "full", id="none", marks=SLOW),
        pytest.param("ddp", "lora", id="ddp-lora", marks=SLOW),
        pytest.param("zero1", "full", id="zero1", marks=SLOW),
        pytest.param("zero3", "qlora", id="zero3-qlora", marks=SLOW),
        pytest.param("fsdp2", "full", id="fsdp2", marks=SLOW),
    ],
)
def test_checkpoints_are_those_of_a_run_that_waited(
    strategy: str, kind: str, wish: Callable[..., Path], launch: Callable
) -> None:
    waited = launch(wish("waited", **sections(strategy, kind, background=False)))
    assert waited.exit_code == 0, waited.output
    went_on = launch(wish("went-on", **sections(strategy, kind, background=True)))
    assert went_on.exit_code == 0, went_on.output
    if strategy.startswith("zero"):
        assert went_on.facts["strategy"].startswith(strategy.replace("zero", "ZeRO-"))
    assert went_on.losses == waited.losses
    for step in (3, 6, 8):
        ours, theirs = (contents(run.folder / "checkpoints" / f"step-{step:06d}") for run in (went_on, waited))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(ours[name], value), name
            else:
                assert ours[name] == value, name
    events = [line for line in went_on.lines if line.get("event") in ("save", "saved")]
    assert [e["step"] for e in events if e["event"] == "saved"] == [3, 6, 8]
    assert [e["step"] for e in events if e["event"] == "save"] == [3, 6, 8]


@pytest.mark.faults
def test_killed_in_a_save_it_goes_on_from_a_whole_checkpoint(
    wish: Callable[..., Path], launch: Callable, interrupt: Callable
) -> None:
    whole = launch(wish("whole", **sections("zero2", "full", background=False, every=1)))
    assert whole.exit_code == 0, whole.output
    cut = wish("cut", **sections("zero2", "full", background=True, every=1))

    def kill_all(family: list[psutil.Process]) -> None:
        for process in family:
            process.kill()

    interrupt(cut, 5, kill_all)
    ended = launch(cut)
    assert ended.exit_code == 0, ended.output
    assert "resumed at step" in ended.output
    assert ended.losses == whole.losses
    assert not list((ended.folder / "checkpoints").glob("*.partial"))


@pytest.mark.slow
@pytest.mark.faults
def test_a_disk_that_fills_ends_all_ranks_and_keeps_what_was_there(
    wish: Callable[..., Path], launch: Callable, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(30)
    file = wish("full", **sections("zero2", "full", background=True, steps=40, every=2))
    text = file.read_text().replace(str(file.with_suffix("")), str(disk / "run"))
    file.write_text(text)
    ended = launch(file)
    assert ended.exit_code != 0, ended.output
    assert "cannot be saved" in ended.output and "engine/checkpoint" not in ended.output
    kept = sorted((disk / "run" / "checkpoints").glob("step-*"))
    assert kept and all((folder / "manifest.json").is_file() for folder in kept)
