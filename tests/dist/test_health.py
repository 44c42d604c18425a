"""What goes wrong in a step is told with the samples of every rank, not of the one that tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.track import read

pytestmark = pytest.mark.dist

TWO = {"device": "cpu", "threads": 1, "processes": 2, "strategy": "ddp", "precision": "fp32"}


def test_a_spike_names_the_samples_of_all_ranks(
    wish: Callable[..., Path], launch: Callable, tmp_path: Path
) -> None:
    """Rows that are all alike are soon learnt; the odd one comes once an epoch, and by the third it stands out."""
    rows: list[dict[str, Any]] = [
        {"id": f"row-{n}", "prompt": "def f(x):\n", "completion": "    return x\n"} for n in range(39)
    ]
    rows.append({"id": "odd", "prompt": "~", "completion": "".join(chr(33 + 37 * n % 90) for n in range(60))})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = launch(
        wish(
            "spiky",
            data={"train": [{"path": str(file)}], "packing": False},
            train={"steps": 60, "global_batch": 2, "learning_rate": 1e-3},
            parallel=TWO,
            checkpoint={"at_end": False, "export": "none"},
        )
    )
    assert ended.exit_code == 0, ended.output
    assert ended.facts["strategy"] == "ddp over 2 ranks (gloo)"
    [spike] = read(ended.folder / "spikes.jsonl")
    assert spike["loss"] == ended.losses[spike["step"]] > 2 * spike["usual"]
    parts = spike["micro_batches"]
    assert parts[0]["samples"] == ["odd"] and parts[0]["loss"] > parts[1]["loss"]
    assert {part["rank"] for part in parts} == {0, 1}
    assert spike["grad_norm"] > 0 and spike["learning_rate"] > 0
    assert f"step {spike['step']}: loss " in ended.output and "from odd" in ended.output
    git = ended.facts["git"]
    assert git is None or re.fullmatch(r"[0-9a-f]{40}", git["commit"])


def test_a_norm_that_is_not_finite_names_the_samples_of_all_ranks(
    wish: Callable[..., Path], launch: Callable
) -> None:
    """No loss is looked at after the first step, so that the norm alone tells."""
    train = {"steps": 40, "global_batch": 2, "learning_rate": 1e6, "weight_decay": 1.0, "clip_norm": 0}
    run_file = wish("nan", train=train | {"log_every": 100}, data={"packing": False}, parallel=TWO)
    ended = launch(run_file)
    assert ended.exit_code != 0
    assert ended.facts["strategy"] == "ddp over 2 ranks (gloo)"
    said = [json.loads(file.read_text()) for file in sorted((ended.folder / "crash").glob("rank-*.json"))]
    assert {one["error"] for one in said} == {"Stopped"} and len(said) == 2
    assert len({one["message"] for one in said}) == 1, "all ranks tell the same"
    assert f"gradient norm of step {said[0]['step']} is" in said[0]["message"] and said[0]["step"] > 1
    assert len(set(re.findall(r"row-\d+", said[0]["message"]))) == 2, "one sample of each rank"
