"""The picture of a run: from the files it keeps, while it runs, after it, and on a narrow terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine import protocol
from engine.errors import WishError
from engine.heartbeat import Where, page
from launch import attempts
from launch.hang import Limits
from launch.patrol import Patrol
from launch.watch import look, shown, watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of which three steps were logged and one measured."""
    (tmp_path / protocol.RUN).touch()
    protocol.write_json(tmp_path / protocol.FACTS, {"steps": 100})
    records = [
        {
            "step": step,
            "loss": 4.0 - step,
            "tokens_per_second": 1234.0,
            "learning_rate": 1e-4,
            "memory_mb": 512.0,
        }
        for step in (1, 2, 3)
    ]
    records.append({"step": 3, "validation_loss": 0.5})
    lines = [json.dumps({**record, "time": 1000.0 + number}) for number, record in enumerate(records)]
    (tmp_path / protocol.METRICS).write_text("\n".join(lines) + '\n{"step": 4, "lo')
    return tmp_path


def test_a_running_run_shows_what_each_rank_does(folder: Path) -> None:
    """The heartbeat of this very process, seen by a patrol as a launcher has it."""
    patrol = Patrol(folder, Limits(300, 1800), lockstep=True, expected=1)
    try:
        Where(page(patrol.local, 0)).at("forward", 4)
        patrol._mirrored = 0.0
        patrol._looked = 0.0
        assert patrol.look({0: os.getpid()}, print) is None
        text = "\n".join(shown(look(folder), 100))
    finally:
        patrol.close()
    assert "attempt 1 is under way" in text
    assert (
        "step 3/100  loss 1.0000  1,234 tokens/s  lr 1.00e-04  memory 0.50 GiB  about 1 min 37 s left" in text
    )
    assert f"   0  {patrol.host}" in text and "4         forward    0 s" in text
    assert "step 3: validation_loss 0.5" in text
    assert not look(folder).running, "a launcher that has gone leaves no heartbeats behind"


def test_after_its_end_the_verdict_is_shown_and_no_line_is_too_wide(folder: Path) -> None:
    attempt = attempts.Attempt(
        1,
        "train",
        ("a",),
        2,
        900.0,
        1010.0,
        1,
        3,
        None,
        None,
        None,
        1,
        1,
        "Rank 1 on a died first " + "x" * 80,
    )
    attempts.append(folder, attempt)
    lines = list(shown(look(folder), 50))
    assert all(len(line) <= 50 for line in lines)
    text = " ".join(lines)
    assert "not running; Rank 1 on a died" in text and "attempt 1 ended" in text


def test_one_picture_is_printed_where_there_is_no_terminal(folder: Path) -> None:
    done = CliRunner().invoke(watch, [str(folder)])
    assert done.exit_code == 0 and "step 3/100" in done.output and "\x1b" not in done.output


def test_another_folder_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(watch, [str(tmp_path)])
    assert isinstance(done.exception, WishError)
