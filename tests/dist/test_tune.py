"""A search that is killed and called again is the search that was not; its best values train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

pytestmark = [pytest.mark.dist, pytest.mark.slow]

TEMPER = [sys.executable, "-m", "launch.cli"]
TRIALS = 4


@pytest.fixture
def search(wish: Callable[..., Path], tmp_path: Path) -> Callable[[str], list[str]]:
    """The command of a search of a run of that name, on two ranks under ZeRO-2."""
    space = tmp_path / "space.yaml"
    space.write_text(
        "train.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}\ntrain.warmup_steps: {choices: [0, 2]}\n"
    )

    def command(name: str) -> list[str]:
        file = wish(
            name,
            train={"steps": 6, "global_batch": 4, "validate_every": 2},
            data={"validation_fraction": 0.1},
            parallel={"strategy": "zero2", "processes": 2, "device": "cpu", "threads": 1},
        )
        options = ["--trials", str(TRIALS), "--startup", "2", "--sampler", "random"]
        return [*TEMPER, "tune", str(file), "--space", str(space), *options]

    return command


def called(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=400)


def shown(argv: list[str]) -> dict[str, Any]:
    done = called([*TEMPER, "tune", argv[argv.index("tune") + 1], "--show", "--json"])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill_in_a_trial(argv: list[str], number: int) -> None:
    """Start a search and kill -9 it with all its processes once that trial has logged a step."""
    metrics = (
        Path(argv[argv.index("tune") + 1]).with_suffix("") / "tune" / f"trial-{number:04d}" / "metrics.jsonl"
    )
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (metrics.exists() and '"step": 3,' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        os.kill(member.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_search_goes_on_to_the_same_end(search: Callable[[str], list[str]]) -> None:
    whole = search("whole")
    done = called(whole)
    assert done.returncode == 0, done.stderr
    cut = search("cut")
    kill_in_a_trial(cut, 1)
    again = called(cut)
    assert again.returncode == 0, again.stderr
    one, two = shown(whole), shown(cut)
    assert len(one["trials"]) == len(two["trials"]) == TRIALS
    for theirs, ours in zip(one["trials"], two["trials"], strict=True):
        assert (theirs["values"], theirs["state"]) == (ours["values"], ours["state"])
        assert theirs["value"] == ours["value"]
    folder = Path(cut[cut.index("tune") + 1]).with_suffix("") / "tune"
    facts = json.loads((folder / "trial-0000" / "facts.json").read_text())
    assert facts["strategy"].startswith("ZeRO-2 over 2 ranks")
    best = yaml.safe_load((folder / "best.yaml").read_text())
    values = [trial["value"] for trial in two["trials"] if trial["state"] == "done"]
    winner = next(trial for trial in two["trials"] if trial["value"] == min(values))
    assert best["train"]["learning_rate"] == pytest.approx(winner["values"]["train.learning_rate"])
    trained = called([*TEMPER, "train", str(folder / "best.yaml")])
    assert trained.returncode == 0, trained.stderr
