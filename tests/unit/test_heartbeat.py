"""A rank's heartbeat: what the launcher reads is what the rank last did, from another process too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import heartbeat
from engine.heartbeat import PHASES, Where


def test_what_a_rank_does_is_read_from_its_page(tmp_path: Path) -> None:
    file = heartbeat.page(tmp_path, 3)
    where = Where(file)
    beat = heartbeat.read(file)
    assert beat is not None and (beat.phase, beat.step, beat.pulse) == ("start", None, 1)
    for step in (5, 6, 7, 8):
        where.at("data", step)
        where.at("forward")
        time.sleep(0.01 * step)
    beat = heartbeat.read(file)
    assert beat is not None
    assert (beat.phase, beat.step, beat.first) == (where.phase, where.step, 5) == ("forward", 8, 5)
    assert [round(seconds, 2) for seconds in beat.durations] == pytest.approx([0.06, 0.07], abs=0.02), (
        "the first step is left out, the last is not over"
    )
    assert beat.seconds["forward"] == pytest.approx(0.18, abs=0.05)
    assert 0.06 <= beat.longest["forward"] < 0.15


def test_a_phase_that_goes_on_is_a_sign_of_life_and_no_step_forward(tmp_path: Path) -> None:
    where = Where(heartbeat.page(tmp_path, 0))
    where.at("validate")
    before = heartbeat.read(heartbeat.page(tmp_path, 0))
    where.at("validate")
    after = heartbeat.read(heartbeat.page(tmp_path, 0))
    assert before is not None and after is not None
    assert after.count == before.count and after.pulse == before.pulse + 1


def test_a_long_run_keeps_its_last_steps(tmp_path: Path) -> None:
    where = Where(heartbeat.page(tmp_path, 0))
    for step in range(1, 100):
        where.at("data", step)
    beat = heartbeat.read(heartbeat.page(tmp_path, 0))
    assert beat is not None and len(beat.durations) == 32 and all(seconds > 0 for seconds in beat.durations)


def test_every_phase_has_its_place_in_the_page(tmp_path: Path) -> None:
    where = Where(heartbeat.page(tmp_path, 0))
    for phase in PHASES:
        where.at(phase)
        beat = heartbeat.read(heartbeat.page(tmp_path, 0))
        assert beat is not None and beat.phase == phase
    with pytest.raises(KeyError):
        where.at("somewhere")


def test_a_file_that_is_no_page_is_no_heartbeat(tmp_path: Path) -> None:
    assert heartbeat.read(tmp_path / "none") is None
    (tmp_path / "short").write_bytes(b"x")
    assert heartbeat.read(tmp_path / "short") is None
    (tmp_path / "empty").write_bytes(bytes(4096))
    assert heartbeat.read(tmp_path / "empty") is None


RANK = """
import time
from engine import heartbeat
where = heartbeat.begin(1)
where.at("forward", 7)
print("begun", flush=True)
def wait_for_ever():
    while True:
        time.sleep(60)
wait_for_ever()
"""


def test_a_rank_writes_its_stacks_when_it_is_asked_and_goes_on(tmp_path: Path, root: Path) -> None:
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK],
        cwd=root,
        env={**os.environ, heartbeat.FOLDER_VARIABLE: str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert rank.stdout is not None and rank.stdout.readline() == "begun\n"
        beat = heartbeat.read(heartbeat.page(tmp_path, 1))
        assert beat is not None and (beat.step, beat.phase) == (7, "forward")
        os.kill(rank.pid, heartbeat.STACKS_SIGNAL)
        deadline = time.monotonic() + 10
        while "wait_for_ever" not in heartbeat.stacks(tmp_path, 1).read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert rank.poll() is None
        rank.send_signal(signal.SIGKILL)
        rank.wait()
        assert heartbeat.read(heartbeat.page(tmp_path, 1)) == beat, "what it did last outlives it"
    finally:
        rank.kill()
        rank.communicate()


def test_without_a_launcher_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(heartbeat.FOLDER_VARIABLE, str(tmp_path / "gone"))
    where = heartbeat.begin(0)
    where.at("data", 1)
    assert (where.folder, where.phase, where.step) == (None, "data", 1)
    assert heartbeat.FOLDER_VARIABLE not in os.environ, "a process that this one starts is no rank"
