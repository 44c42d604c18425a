"""The checkout of a run: commit and changes, and no word where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.train import checkout as module
from engine.train.checkout import checkout


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    argv = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert checkout(tmp_path) is None, "nothing is committed yet"
    (tmp_path / "run.yaml").write_text("a: 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "metrics.jsonl").write_text("{}\n")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert checkout(tmp_path / "runs") == {"commit": commit, "dirty": False}, "what runs leave is no change"
    (tmp_path / "run.yaml").write_text("a: 2\n")
    assert checkout(tmp_path) == {"commit": commit, "dirty": True}


def test_no_checkout_no_git_and_a_git_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkout(tmp_path) is None
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert checkout(tmp_path) is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert checkout(tmp_path) is None
