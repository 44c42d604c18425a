"""What cannot be had is refused in one sentence with the right exit code, and nothing is half written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist

HIDE_BITSANDBYTES = "import sys; sys.modules['bitsandbytes'] = None; from engine.cli import main; main()"


def engine(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "engine"]
    return subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, timeout=200)


def only_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence; anything like a stack trace fails the test."""
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("temper: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_cuda_on_a_machine_without(wish: Callable[..., Path]) -> None:
    done = engine("train", str(wish("cuda", parallel={"device": "cuda"})))
    assert done.returncode == 2
    assert "parallel.device is cuda and torch finds no CUDA device" in only_error(done)


def test_missing_bitsandbytes(wish: Callable[..., Path]) -> None:
    done = engine("train", str(wish("qlora", adapter={"kind": "qlora"})), code=HIDE_BITSANDBYTES)
    assert done.returncode == 2
    assert "pip install bitsandbytes" in only_error(done)


def test_target_modules_that_match_nothing(wish: Callable[..., Path]) -> None:
    done = engine("train", str(wish("lora", adapter={"kind": "lora", "target_modules": ["query"]})))
    assert done.returncode == 2
    assert "q_proj" in only_error(done), "the names there are belong to the fix"


def test_a_folder_that_is_no_model(wish: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = engine("train", str(wish("empty-model", model={"path": str(tmp_path / "empty")})))
    assert done.returncode == 2
    assert "has no config.json" in only_error(done)


def test_loss_that_is_not_finite_names_its_samples(wish: Callable[..., Path]) -> None:
    run_file = wish(
        "nan",
        train={"steps": 40, "global_batch": 4, "learning_rate": 1e6, "weight_decay": 1.0, "clip_norm": 0},
    )
    done = engine("train", str(run_file))
    assert done.returncode == 93
    said = only_error(done)
    assert "is not finite" in said or "gradient norm of step" in said
    assert "row-" in said
    crash = json.loads((run_file.with_suffix("") / "crash" / "rank-0.json").read_text())
    assert crash["error"] == "Stopped" and crash["step"] is not None
    assert not (run_file.with_suffix("") / "model").exists()


def test_a_resume_that_would_be_another_run(wish: Callable[..., Path], small: Path, tmp_path: Path) -> None:
    first = wish("same", train={"steps": 2, "global_batch": 4})
    assert engine("train", str(first)).returncode == 0
    other_wish = engine("train", str(wish("same", train={"steps": 4, "global_batch": 8})))
    assert other_wish.returncode == 2
    assert "train.global_batch 4 -> 8" in only_error(other_wish)
    other_model = tmp_path / "other"
    subprocess.run(["cp", "-r", str(small / "model"), str(other_model)], check=True)
    config = json.loads((other_model / "config.json").read_text())
    (other_model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    moved = engine(
        "train", str(wish("same", train={"steps": 4, "global_batch": 4}, model={"path": str(other_model)}))
    )
    assert moved.returncode == 2
    assert "model.path" in only_error(moved)
    torn = tmp_path / "same" / "checkpoints" / "step-000002" / "weights" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    again = engine("train", str(wish("same", train={"steps": 3, "global_batch": 4})))
    assert again.returncode == 0
    assert "checkpoint step-000002 is skipped" in again.stderr
    assert "resumed" not in again.stdout


def test_a_resume_on_edited_rows(wish: Callable[..., Path], small: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((small / "train.jsonl").read_bytes())
    data = {"train": [{"path": str(rows)}], "max_length": 96}
    assert engine("train", str(wish("edited", data=data, train={"steps": 2}))).returncode == 0
    rows.write_text(rows.read_text().replace("return x +", "return x  +", 1))
    done = engine("train", str(wish("edited", data=data, train={"steps": 4})))
    assert done.returncode == 2
    assert f"data files {rows}: " in only_error(done)


def test_early_stop_by_what_is_logged(wish: Callable[..., Path]) -> None:
    """The gradient norm falls while this learns, so `max` never improves on the first: two more looks, and the end."""
    train = {"steps": 40, "log_every": 2, "early_stop_patience": 2, "warmup_steps": 0}
    done = engine(
        "train", str(wish("logged", train=train, checkpoint={"metric": "learning_rate", "export": "best"}))
    )
    assert done.returncode == 0, done.stderr
    assert "early stopped at step 4 " in done.stdout


def test_a_metric_the_benchmark_does_not_give(wish: Callable[..., Path]) -> None:
    done = engine(
        "train",
        str(
            wish(
                "unknown",
                train={"steps": 2, "evaluate_every": 1},
                evaluate={"benchmark": "basics", "in_loop_limit": 2, "max_new_tokens": 4},
                checkpoint={"metric": "pass@1/none"},
            )
        ),
    )
    assert done.returncode == 2
    assert "pass@1/none, which the benchmark does not give: it gives" in only_error(done)
