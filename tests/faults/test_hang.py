"""A real training on real ranks: one is stopped or killed from outside, is named, and the run goes on by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import attempts, processes

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.faults


class Training:
    """`temper train` of the embedded model on two ranks."""

    def __init__(self, folder: Path, **parallel: Any) -> None:
        self.folder = folder / "run"
        rows = [{"prompt": f"def f{n}(x):\n", "completion": f"    return x + {n}\n"} for n in range(40)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        wish = {
            "output": str(self.folder),
            "model": {"path": str(ROOT / "configs" / "tiny" / "base")},
            "data": {"train": [{"path": str(folder / "rows.jsonl")}], "max_length": 64},
            "train": {"steps": 400, "global_batch": 2},
            "parallel": {"device": "cpu", "strategy": "ddp", "processes": 2, "threads": 1, **parallel},
            "checkpoint": {"every": 3},
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(wish))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launch", "train", str(folder / "run.yaml")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_step(self, step: int, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        metrics = self.folder / "metrics.jsonl"
        while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            assert time.monotonic() < deadline and self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def rank(self, rank: int) -> int:
        """The process of a rank, once there is one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for launcher in processes.children(self.process.pid):
                found = processes.ranks(launcher, ("train", str(self.folder.parent / "run.yaml")))
                if rank in found:
                    return found[rank]
            time.sleep(0.05)
        raise AssertionError(f"there is no rank {rank}")


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Any]:
    made: list[Training] = []

    def start(**parallel: Any) -> Training:
        made.append(Training(tmp_path, **parallel))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_a_stopped_rank_is_named_with_stacks_of_the_others_and_the_tree_is_killed(training: Any) -> None:
    run = training()
    run.until_step(4)
    os.kill(run.rank(1), signal.SIGSTOP)
    _, said = run.process.communicate(timeout=60)
    assert run.process.returncode == 1
    last = attempts.read(run.folder)[-1]
    assert last.rank == 1 and last.sentence in said
    assert "Rank 1 on " in last.sentence and "while 1 other waits for it: stopped (state T)" in last.sentence
    logs = attempts.log_folder(run.folder, 1)
    assert "take_step" in (logs / "stacks-rank-0.txt").read_text(), "where the other one waited"
    assert not (logs / "stacks-rank-1.txt").exists(), "a stopped process cannot answer"
    assert last.seconds["forward"] > 0 and last.last_step is not None and last.last_step >= 4


def test_a_killed_rank_is_started_again_from_the_newest_checkpoint(training: Any) -> None:
    run = training(restarts=1)
    run.until_step(4)
    os.kill(run.rank(1), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while not attempts.read(run.folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = attempts.read(run.folder)[0]
    assert first.rank == 1 and "killed by SIGKILL" in first.sentence and first.saved in (3, 6, 9, 12)
    assert first.last_step is not None
    # Rank 0, whose steps are written down, may be one further than the rank that died.
    assert any(f"died first at step {first.last_step - back}, " in first.sentence for back in (0, 1))
    # A step the first attempt cannot have written: before it, its lines would be taken for those of the second.
    run.until_step(first.last_step + 2)
    os.kill(run.rank(0), signal.SIGKILL)
    _, said = run.process.communicate(timeout=60)
    assert run.process.returncode == 1, "one restart was granted, not two"
    assert f"starting again from step {first.saved} (restart 1 of 1)" in said
    second = attempts.read(run.folder)[1]
    assert (second.number, second.saved_before, second.first_step) == (2, first.saved, first.saved + 1)
    assert "Rank 0 died first" in second.sentence
    assert (attempts.log_folder(run.folder, 1) / "rank-0.log").exists()
