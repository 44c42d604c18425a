"""Who is judged: weights are loaded by a rank that has something to draw, and by no other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from engine.config import Run
from engine.dist import start
from engine.errors import WishError
from engine.evaluate.subject import evaluate_run


def test_what_is_drawn_already_needs_no_weights(tmp_path: Path, root: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(root / "configs" / "tiny" / "base", model)
    run = Run.model_validate(
        {
            "output": str(tmp_path / "run"),
            "model": {"path": str(model)},
            "parallel": {"strategy": "none", "device": "cpu", "precision": "fp32"},
            "evaluate": {"benchmark": "basics", "limit": 2, "max_new_tokens": 4},
        }
    )
    world = start(run, sharded=False)
    first = evaluate_run(run, world, base=False)
    assert first is not None and first.found.figures.samples == 2
    weights = model / "model.safetensors"
    kept = weights.stat()
    weights.write_bytes(bytes(kept.st_size))
    os.utime(weights, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    again = evaluate_run(run, world, base=False)
    assert again is not None and again.found == first.found
    more = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"limit": 3})})
    with pytest.raises(WishError, match="does not load"):
        evaluate_run(more, world, base=False)
