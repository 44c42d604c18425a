"""Spikes: what is far above the recent past and nothing else, with the samples it came from."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.data import IGNORED, Batch
from engine.track import read
from engine.train.spikes import KEPT, Spikes

ALONE: Any = SimpleNamespace(rank=0, size=1, first=True, gather=lambda value: [value])


def batch(*names: str, trained: int) -> Batch:
    ids = torch.ones(1, 8, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    labels[0, 1 : 1 + trained] = 1
    return Batch(ids, labels, torch.arange(8)[None], names, 8)


def told(losses: list[float], folder: Path) -> list[int]:
    spikes = Spikes(folder)
    return [at for at, loss in enumerate(losses) if spikes.far_above(loss) is not None]


def test_noise_and_learning_are_no_spikes_and_a_jump_is_one(tmp_path: Path) -> None:
    draw = random.Random(0)
    falling = [3.0 * 0.99**step + draw.gauss(0.0, 0.05) + 0.5 for step in range(400)]
    assert told(falling, tmp_path) == []
    falling[200] += 2.0
    falling[300] += 2.0
    assert told(falling, tmp_path) == [200, 300], "the first does not hide the second"


def test_nothing_is_called_before_there_is_a_past(tmp_path: Path) -> None:
    assert told([1.0] * (KEPT - 1) + [50.0], tmp_path) == []
    assert told([1.0] * KEPT + [50.0], tmp_path) == [KEPT]


def test_losses_that_hardly_vary_may_vary_a_little(tmp_path: Path) -> None:
    assert told([1.0] * 40 + [1.05, 1.0, 1.2], tmp_path) == [42]


def test_what_stays_becomes_the_usual_and_memory_is_bounded(tmp_path: Path) -> None:
    spikes = Spikes(tmp_path)
    found = [spikes.far_above(loss) is not None for loss in [1.0] * 1000 + [9.0] * 1000]
    assert 0 < sum(found) <= KEPT
    assert len(spikes._recent) == KEPT


def test_the_worst_micro_batch_is_named_first(tmp_path: Path) -> None:
    spikes = Spikes(tmp_path)
    batches = [batch("calm", trained=4), batch("wild", "other", trained=2), batch("nothing", trained=0)]
    worst = spikes.write(ALONE, {"step": 7, "loss": 5.0}, batches, [4.0, 30.0, 0.0])
    assert worst.samples == ("wild", "other") and worst.loss == 15.0
    [record] = read(tmp_path / "spikes.jsonl")
    assert record["step"] == 7 and [part["loss"] for part in record["micro_batches"]] == [15.0, 1.0, 0.0]
    assert record["micro_batches"][0] == {"rank": 0, "loss": 15.0, "samples": ["wild", "other"]}


def test_spikes_of_steps_that_run_again_are_forgotten(tmp_path: Path) -> None:
    spikes = Spikes(tmp_path)
    spikes.forget_after(3)
    assert not (tmp_path / "spikes.jsonl").exists(), "a run without any has no such file"
    for step in (2, 5):
        spikes.write(ALONE, {"step": step}, [batch("x", trained=1)], [1.0])
    spikes.forget_after(3)
    assert [record["step"] for record in read(tmp_path / "spikes.jsonl")] == [2]
