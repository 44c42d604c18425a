"""The person's door: verbs, hints, exit codes, and a dry run that prints what would be run, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
RUN = "output: {output}\nmodel:\n  path: some/model\ndata:\n  train: [{{path: rows.jsonl}}]\nparallel:\n  device: cpu\n"


def temper(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launch", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(output=tmp_path / "run"))
    return file


def test_help_names_every_verb() -> None:
    done = temper("--help")
    assert done.returncode == 0
    for verb in (
        "train",
        "plan",
        "verify",
        "check",
        "evaluate",
        "score",
        "compare",
        "rescore",
        "report",
        "card",
        "benchmark",
        "sandbox",
        "data",
        "watch",
        "explain",
        "config",
        "demo",
        "version",
    ):
        assert f"\n  {verb} " in done.stdout


def test_an_unknown_verb_names_the_nearest() -> None:
    done = temper("evalute")
    assert done.returncode == 2
    assert "did you mean `temper evaluate`?" in done.stderr


@pytest.mark.parametrize("words", [["score"], ["train", "--wrong"], ["sandbox", "attack", "--level", "best"]])
def test_a_slip_on_the_command_line_is_one_line_that_names_the_verb(words: list[str]) -> None:
    done = temper(*words)
    verb = " ".join(word for word in words if word.isalpha() and word != "best")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("temper: ") and done.stderr.endswith(f"(see `temper {verb} --help`)\n")
    assert done.stderr.count("\n") == 1


def test_a_dry_run_prints_the_line_and_starts_nothing(run_file: Path, tmp_path: Path) -> None:
    first, again = temper("train", str(run_file), "--dry-run"), temper("train", str(run_file), "--dry-run")
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert first.stdout.endswith(f" -m engine train {run_file}\n") and first.stdout.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_is_printed_is_what_is_run(run_file: Path, tmp_path: Path) -> None:
    """A stand-in for accelerate writes down the words it was started with."""
    fake = tmp_path / "bin" / "accelerate"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" accelerate "$@" > "$WORDS"\nenv > "$WORDS.env"\n')
    fake.chmod(0o755)
    code = (
        "import sys\nfrom launch import agent\nfrom launch.cli import temper\n"
        f"agent._accelerate = lambda name: {str(fake)!r}\n"
        f"temper(['train', {str(run_file)!r}, '--set', 'train.steps=3', '--processes', '2', '--set', "
        "'parallel.strategy=ddp'])"
    )
    words = tmp_path / "words"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "WORDS": str(words)},
        capture_output=True,
        text=True,
    )
    line = done.stdout.splitlines()[0]
    got = words.read_text().split("\n")[:-1]
    assert line.endswith(" ".join(got))
    assert got[-8:-6] == ["train", str(run_file)]
    told = dict(item.split("=", 1) for item in line.split() if "=" in item and item.split("=")[0].isupper())
    environment = Path(f"{words}.env").read_text().splitlines()
    assert told and all(f"{name}={value}" in environment for name, value in told.items())
    assert done.returncode == 1, "ranks that leave no outcome are a failure, whatever accelerate says"


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("train.global_batch=7", "is not divisible by 2 ranks"),
        ("train.stepz=7", "did you mean steps?"),
        ("train.steps=many", "train.steps is 'many'"),
        ("parallel.strategy=none", "parallel.strategy is none and there are 2 ranks"),
        ("nonsense", "has no `=`"),
    ],
)
def test_a_wrong_wish_is_one_sentence_and_exit_code_two(run_file: Path, change: str, hint: str) -> None:
    done = temper(
        "train", str(run_file), "--set", "parallel.strategy=ddp", "--processes", "2", "--set", change
    )
    assert done.returncode == 2
    assert hint in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_missing_run_file_names_a_near_one(run_file: Path) -> None:
    done = temper("train", str(run_file.with_name("runn.yaml")))
    assert done.returncode == 2
    assert "did you mean" in done.stderr and "run.yaml" in done.stderr


def test_show_says_where_values_come_from(run_file: Path) -> None:
    done = temper("config", "show", str(run_file), "--set", "train.steps=3")
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()}
    assert rows["train.steps"] == "--set"
    assert rows["model.path"] == f"{run_file}:3"
    assert "train.clip_norm" not in rows
    assert "train.clip_norm" in temper("config", "show", str(run_file), "--all").stdout


def test_check_names_every_clash_and_ends_with_two(run_file: Path) -> None:
    done = temper("config", "check", str(run_file), "--set", "parallel.processes=3", "--set", "evaluate.k=[5]",
                  "--set", "evaluate.benchmark=basics")  # fmt: skip
    assert done.returncode == 2
    assert "3 to mend" in done.stdout
    assert temper("config", "check", str(run_file)).returncode == 0


def test_verbs_of_the_engine_keep_their_exit_code() -> None:
    assert temper("benchmark", "list").returncode == 0
    done = temper("sandbox", "run", "/no/such/file.py")
    assert done.returncode == 2


def test_the_demo_removes_only_what_a_demo_made(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("mine\n")
    done = temper("demo", "--out", str(tmp_path))
    assert done.returncode == 2 and "no demo made it" in done.stderr
    assert (tmp_path / "train.jsonl").read_text() == "mine\n"
