"""Ranks that die, stop or are stopped, under the real `accelerate launch`: the verdict, its code, and no orphan."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch import attempts, processes

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
pytestmark = pytest.mark.faults

DRIVER = """
import dataclasses, sys
from engine.config import Run
from launch.agent import supervise
from launch.command import plan
folder, mode, count, restarts = sys.argv[1:]
count = int(count)
run = Run(output=folder, model={"path": "none"}, parallel={
    "processes": count, "strategy": "ddp" if count > 1 else "none", "device": "cpu",
    "restarts": int(restarts)})
launch = dataclasses.replace(plan(run, "train", "run.yaml"), target=(STAND_IN, folder, mode))
sys.exit(supervise(launch, after_exit_seconds=4.0).exit_code)
""".replace("STAND_IN", repr(str(HERE / "stand_in.py")))


@dataclass
class Ended:
    code: int
    output: str
    errors: str
    seconds: float


class Launcher:
    """One launcher process with its stand-in ranks."""

    def __init__(self, folder: Path, mode: str, count: int = 2, restarts: int = 0) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder), mode, str(count), str(restarts)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, "the stand-in ranks did not come so far"
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.02)

    def stepping(self) -> bool:
        metrics = self.folder / "metrics.jsonl"
        return metrics.exists() and metrics.read_text().count("\n") >= 2

    def end(self, seconds: float = 60.0) -> Ended:
        output, errors = self.process.communicate(timeout=seconds)
        return Ended(self.process.returncode, output, errors, time.monotonic() - self.began)

    def relatives(self) -> list[int]:
        """Processes whose command line or parentage says they belong to this run folder."""
        return [
            row.pid for row in processes.table() if str(self.folder) in " ".join(processes.words(row.pid))
        ]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    made: list[Launcher] = []

    def begin(mode: str, count: int = 2, restarts: int = 0) -> Launcher:
        made.append(Launcher(tmp_path / "run", mode, count, restarts))
        return made[-1]

    yield begin
    for launcher in made:
        if launcher.process.poll() is None:
            launcher.process.kill()
            launcher.process.wait()
        assert gone(launcher), "processes outlived their launcher by 10 s"


def gone(launcher: Launcher, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while launcher.relatives():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("count", [1, 2])
def test_ranks_that_finish_end_with_zero(start: Callable[..., Launcher], count: int) -> None:
    launcher = start("well", count)
    ended = launcher.end()
    assert ended.code == 0, ended.errors
    assert "step 5" in ended.output
    assert "temper:" not in ended.errors
    assert not launcher.relatives()
    logs = launcher.folder / "logs" / "attempt-1"
    assert "step 5" in (logs / "rank-0.log").read_text()
    if count == 2:
        assert "error output of a rank" in (logs / "rank-1.err.log").read_text()


def test_the_rank_that_raised_is_named_not_the_ones_that_lost_it(start: Callable[..., Launcher]) -> None:
    ended = start("raise").end()
    assert ended.code == 1
    last = ended.errors.strip().splitlines()[-2]
    assert last.startswith("temper: Rank 1 on ")
    assert "died first at step 3, forward: ValueError: loss is not a number; 1 other followed." in last
    assert "ChildFailedError" not in ended.errors


@pytest.mark.parametrize(("mode", "name"), [("sigkill", "SIGKILL"), ("segfault", "SIGSEGV")])
def test_a_rank_killed_by_a_signal_is_named_though_it_wrote_nothing(
    start: Callable[..., Launcher], mode: str, name: str
) -> None:
    ended = start(mode).end()
    assert ended.code == 1
    assert f"Rank 1 died first after step 2: it was killed by {name}" in ended.errors
    assert ended.errors.count("died first") == 1


def test_a_single_rank_killed_by_a_signal_is_named(start: Callable[..., Launcher]) -> None:
    ended = start("sigkill", 1).end()
    assert ended.code == 1
    assert "Rank 0 died first after step 2: it was killed by SIGKILL" in ended.errors


def test_exit_zero_before_the_end_is_a_failure(start: Callable[..., Launcher]) -> None:
    ended = start("exit0").end()
    assert ended.code == 1
    assert (
        "Rank 1 died first after step 2: it ended with exit code 0 without finishing its work" in ended.errors
    )


def test_a_wrong_wish_of_every_rank_is_said_once(start: Callable[..., Launcher]) -> None:
    ended = start("wish").end()
    assert ended.code == 2
    assert ended.errors.count("is not divisible") == 1


def test_one_interrupt_stops_at_the_border_and_saves(start: Callable[..., Launcher]) -> None:
    launcher = start("well-asked")
    launcher.until(launcher.stepping)
    launcher.process.send_signal(signal.SIGINT)
    ended = launcher.end()
    assert ended.code == 75, ended.errors
    assert "Stopped as asked, saved at step" in ended.errors
    assert "Ctrl-C again kills at once" in ended.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_place_that_preempts_gets_seventy_five(start: Callable[..., Launcher], number: int) -> None:
    launcher = start("well-asked")
    launcher.until(launcher.stepping)
    launcher.process.send_signal(number)
    assert launcher.end().code == 75


def test_a_second_interrupt_kills_ranks_that_do_not_listen(start: Callable[..., Launcher]) -> None:
    launcher = start("deaf")
    launcher.until(launcher.stepping)
    launcher.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert launcher.process.poll() is None
    asked = time.monotonic()
    launcher.process.send_signal(signal.SIGINT)
    ended = launcher.end()
    assert time.monotonic() - asked < 5
    assert ended.code == 1
    assert "Killed on request after step" in ended.errors
    assert not launcher.relatives()


def test_three_attempts_without_a_checkpoint_end_the_restarts(start: Callable[..., Launcher]) -> None:
    launcher = start("sigkill", 1, restarts=5)
    ended = launcher.end(120)
    assert ended.code == 93, ended.errors
    assert "starting again from the beginning (restart 2 of 5)" in ended.errors
    assert "The last 3 attempts made no progress (no checkpoint was saved)" in ended.errors
    history = attempts.read(launcher.folder)
    assert [attempt.exit_code for attempt in history] == [1, 1, 93]
    assert all("killed by SIGKILL" in attempt.sentence for attempt in history)
    for number in (1, 2, 3):
        assert (attempts.log_folder(launcher.folder, number) / "rank-0.log").exists()


def test_a_launcher_killed_outright_is_accounted_for_and_leaves_no_orphan(
    start: Callable[..., Launcher],
) -> None:
    launcher = start("deaf")
    launcher.until(launcher.stepping)
    assert len(launcher.relatives()) >= 4
    launcher.process.kill()
    launcher.process.wait()
    assert gone(launcher)
    (last,) = attempts.read(launcher.folder)
    assert last.exit_code is None and last.sentence.startswith("The launcher was killed")


def test_two_launchers_do_not_share_a_run_folder(start: Callable[..., Launcher]) -> None:
    first = start("deaf")
    first.until(first.stepping)
    second = Launcher(first.folder, "well")
    ended = second.end()
    assert "another launcher is at work" in ended.errors
    assert first.process.poll() is None


def test_rank_zero_has_a_terminal_where_the_launcher_has_one(tmp_path: Path) -> None:
    script = tmp_path / "tty.py"
    script.write_text("import sys; print('tty', sys.stdout.isatty(), sys.stderr.isatty())")
    driver = DRIVER.replace(repr(str(HERE / "stand_in.py")), repr(str(script)))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", driver, str(tmp_path / "run"), "x", "1", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=theirs,
        stderr=theirs,
    )
    process.wait(60)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "tty True True" in shown
