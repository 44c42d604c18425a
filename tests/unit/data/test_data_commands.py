"""The `data` verbs, on a run file and a tokenizer folder as users have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from engine.data import redaction
from engine.data.commands import data
from engine.data.sources import Row
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


MAIL = "anna.berg@firm-post.org"
KEY = "ghp_" + "q7Xv2Lm9Rk4Tz8Wp1Bn6Yc3Hd5Jf0GsAeUiZ4"
LOOKED_AT = [
    {"prompt": "Sort a list.\n", "completion": "```python\nvalues.sort()\n```\n", "license": "mit"},
    {"prompt": "Sort a  list.\n", "completion": "```python\nvalues.sort()\n```\n", "license": "mit"},
    {"prompt": "Who?\n", "completion": f"{MAIL} or {MAIL}\n", "license": "apache-2.0", "language": "Py"},
    {"prompt": "Log in.\n", "completion": f"```js\nlogin('{KEY}')\n```\n", "meta": {"by": [MAIL]}},
]


def _check(run_file: str, rows: str, *more: str) -> Any:
    words = [
        "check",
        run_file,
        "--set",
        f"data.train=[{{path: {rows}}}]",
        "--set",
        "data.max_length=200",
        *more,
    ]
    return CliRunner().invoke(data, words)


def test_check_looks_at_the_rows_and_never_prints_a_secret(run_file: str, write: Callable[..., str]) -> None:
    rows = write(LOOKED_AT, "looked.jsonl")
    result = _check(run_file, rows, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["duplicates"]["exact_groups"] == [[f"{rows}:1", f"{rows}:2"]]
    assert facts["secrets"] == {"github_token": {"count": 1, "rows": 1, "places": [f"{rows}:4"]}}
    assert facts["personal_data"] == {"email": {"count": 3, "rows": 2, "places": [f"{rows}:3", f"{rows}:4"]}}
    assert facts["languages"] == {"python": 3, "javascript": 1}
    assert facts["licences"] == {"mit": 2, "apache-2.0": 1, "none given": 1}
    assert facts["lengths"]["min"] < facts["lengths"]["median"] <= facts["lengths"]["max"]
    assert 0 < facts["masks"]["trained_share"] < 1
    assert facts["masks"]["rows_without_trained_tokens"] == 0
    assert facts["findings"] == ["exact duplicates", "secrets", "personal data"]
    plain = _check(run_file, rows)
    assert f"places: {rows}:3, {rows}:4" in plain.output and "github_token" in plain.output
    for output in (result.output, plain.output):
        assert MAIL not in output and KEY not in output


def test_strict_turns_a_finding_into_a_refusal(run_file: str, write: Callable[..., str]) -> None:
    found = _check(run_file, write(LOOKED_AT, "looked.jsonl"), "--strict")
    assert isinstance(found.exception, WishError) and found.exception.exit_code == 2
    assert "exact duplicates, secrets, personal data" in str(found.exception)
    clean = _check(run_file, write(LOOKED_AT[:1], "clean.jsonl"), "--strict", "--set", "train.global_batch=1")
    assert clean.exit_code == 0, clean.output


def test_redact_writes_a_file_that_is_clean_and_never_over_another(
    run_file: str, write: Callable[..., str], tmp_path: Path
) -> None:
    rows, out = write(LOOKED_AT, "looked.jsonl"), tmp_path / "clean.jsonl"
    facts = json.loads(_check(run_file, rows, "--json", "--redact", str(out)).output)
    assert facts["redacted"] == {"file": str(out), "rows": 4, "rows_changed": 2}
    clean = [json.loads(line) for line in out.read_text().splitlines()]
    assert clean[:2] == LOOKED_AT[:2]
    assert clean[2]["completion"] == "<EMAIL> or <EMAIL>\n" and clean[3]["meta"] == {"by": ["<EMAIL>"]}
    assert clean[3]["completion"] == "```js\nlogin('<GITHUB_TOKEN>')\n```\n"
    again = json.loads(_check(run_file, str(out), "--json").output)
    assert again["secrets"] == {} and again["personal_data"] == {}
    before = out.read_bytes()
    refused = _check(run_file, rows, "--redact", str(out))
    assert isinstance(refused.exception, WishError) and "is not overwritten" in str(refused.exception)
    assert out.read_bytes() == before
    source = _check(run_file, rows, "--redact", rows)
    assert isinstance(source.exception, WishError)


def test_a_file_that_came_meanwhile_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(WishError, match="not overwritten"):
        redaction.write(tmp_path / "out.jsonl", [Row("1", "rows:1", {"text": MAIL})])
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    with pytest.raises(WishError, match="rows:1 cannot be written as JSON"):
        redaction.write(tmp_path / "new.jsonl", [Row("1", "rows:1", {"text": MAIL, "raw": b"x"})])
    assert not (tmp_path / "new.jsonl").exists()


def test_check_refuses_a_renamed_copy_of_a_task(run_file: str, write: Callable[..., str]) -> None:
    task = "def most(values):\n    best = values[0]\n    for v in values:\n        if v > best:\n            best = v\n"
    task += "    return best, len(values)\n"
    copy = {"prompt": "Find it.\n", "completion": task.replace("best", "b").replace("values", "xs")}
    words = ["check", run_file, "--set", f"data.train=[{{path: {write([*ROWS, copy], 'copy.jsonl')}}}]"]
    words += ["--set", "data.max_length=250", "--json"]
    with pytest.raises(WishError, match=r"most\(\) of t/1, names aside"):
        CliRunner().invoke(
            data, words, obj={"benchmark_texts": lambda run: {"t/1": task}}, catch_exceptions=False
        )
    other = {"benchmark_texts": lambda run: {"t/1": task.replace(">", "<")}}
    facts = json.loads(CliRunner().invoke(data, words, obj=other, catch_exceptions=False).output)
    counts = facts["decontamination_counts"]
    assert (
        counts["functions"] == 1 and counts["reference_functions"] == 1 and counts["contaminated_rows"] == 0
    )
