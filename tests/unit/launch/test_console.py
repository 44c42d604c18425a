"""The console of an attempt: what counts as shown is what a person could read, not what the ranks wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.console import Console


def test_what_was_kept_back_was_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    console = Console(tmp_path / "rank-0.log", report_of="accelerate")
    os.write(console.out.writing, b"saved at\n step 4\n")
    console.copy()
    assert console.shown("saved at step 4")
    console.mute()
    os.write(console.err.writing, b"died first\n")
    console.copy()
    assert not console.shown("died first") and console.err.tail == b"died first\n"
    for stream in console.streams:
        stream.started()
    console.close()
    assert b"died first" in (tmp_path / "rank-0.log").read_bytes()
    assert "died" not in capfd.readouterr().err
