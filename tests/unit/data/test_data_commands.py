"""The `data` verbs, on a run file and a tokenizer folder as users have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from engine.data.commands import data
from engine.errors import WishError

ROWS = [{"prompt": f"def f{n}(x):\n", "completion": f"    return x + {n}\n"} for n in range(6)]


@pytest.fixture
def run_file(chatml: Any, write: Callable[..., str], tmp_path: Path) -> str:
    chatml.save_pretrained(tmp_path / "model")
    shape = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": 512, "max_position_embeddings": 256}
    (tmp_path / "model" / "config.json").write_text(json.dumps(shape))
    run = {
        "output": str(tmp_path / "out"),
        "model": {"path": str(tmp_path / "model")},
        "data": {"train": [{"path": write(ROWS)}], "max_length": 64},
        "train": {"global_batch": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return str(tmp_path / "run.yaml")


def test_show_marks_what_is_trained(run_file: str) -> None:
    result = CliRunner().invoke(data, ["show", run_file, "--samples", "6"], catch_exceptions=False)
    assert result.exit_code == 0
    for row in ROWS:
        assert f"{row['prompt']}⟦{row['completion']}<|endoftext|>⟧" in result.output
    colored = CliRunner().invoke(
        data, ["show", run_file, "--samples", "1", "--color"], catch_exceptions=False
    )
    assert "\033[32m    return x" in colored.output and "⟦" not in colored.output


def test_check_prints_the_facts(run_file: str) -> None:
    result = CliRunner().invoke(data, ["check", run_file, "--json"], catch_exceptions=False)
    assert json.loads(result.output)["train"]["rows"] == 6
    plain = CliRunner().invoke(
        data, ["check", run_file, "--set", "data.packing=false"], catch_exceptions=False
    )
    assert "rows_per_epoch: 6" in plain.output


def test_check_compares_with_the_benchmarks_it_is_handed(run_file: str) -> None:
    held = {"benchmark_texts": lambda run: [ROWS[2]["prompt"] + ROWS[2]["completion"]]}
    with pytest.raises(WishError, match="overlap held-out tasks"):
        CliRunner().invoke(data, ["check", run_file], obj=held, catch_exceptions=False)


def test_check_knows_the_models_limits(run_file: str) -> None:
    with pytest.raises(WishError, match="the model's context of 256"):
        CliRunner().invoke(data, ["check", run_file, "--set", "data.max_length=512"], catch_exceptions=False)
