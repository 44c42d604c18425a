"""attempts.jsonl: what is written is read, torn lines harm nothing, and three attempts without progress are enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch import attempts
from launch.attempts import Attempt, hopeless

FAILED = Attempt(
    number=1,
    verb="train",
    hosts=("node-a",),
    ranks=2,
    started=100.0,
    ended=160.0,
    first_step=9,
    last_step=11,
    saved_before=8,
    saved=8,
    asked=None,
    exit_code=1,
    rank=1,
    sentence="Rank 1 died first.",
    seconds={"forward": 12.5},
)


def test_what_is_written_is_read_past_a_torn_line(tmp_path: Path) -> None:
    assert attempts.read(tmp_path) == []
    attempts.append(tmp_path, FAILED)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"number": 2, "ver')
    attempts.append(tmp_path, replace(FAILED, number=3))
    assert attempts.read(tmp_path) == [FAILED, replace(FAILED, number=3)]


def test_an_attempt_that_left_only_logs_is_counted(tmp_path: Path) -> None:
    assert attempts.next_number(tmp_path) == 1
    attempts.append(tmp_path, FAILED)
    attempts.log_folder(tmp_path, 2).mkdir(parents=True)
    assert attempts.next_number(tmp_path) == 3


def test_the_attempt_under_way_is_the_one_with_logs_and_no_line(tmp_path: Path) -> None:
    assert attempts.under_way(tmp_path) == 1
    attempts.append(tmp_path, FAILED)
    assert attempts.under_way(tmp_path) == 2
    # The second left only logs, as its machine went down.
    for number in (2, 3):
        attempts.log_folder(tmp_path, number).mkdir(parents=True)
    assert attempts.under_way(tmp_path) == 3


def test_old_logs_go_and_new_ones_stay(tmp_path: Path) -> None:
    for number in range(1, attempts.KEPT_LOGS + 4):
        attempts.log_folder(tmp_path, number).mkdir(parents=True)
    attempts.prune_logs(tmp_path)
    kept = sorted(int(path.name.removeprefix("attempt-")) for path in (tmp_path / "logs").iterdir())
    assert kept == list(range(4, attempts.KEPT_LOGS + 4))


def test_the_newest_checkpoint_is_the_newest_published_one(tmp_path: Path) -> None:
    assert attempts.saved_step(tmp_path) is None
    for name in ("step-000004", "step-000012", "step-000016.partial"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    (tmp_path / "checkpoints" / "step-000020").mkdir()
    assert attempts.saved_step(tmp_path) == 12


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"saved": 9}, False),
        ({"exit_code": 0}, False),
        ({"exit_code": 2}, False),
        ({"exit_code": 75}, True),
        ({"exit_code": None}, True),
        ({"asked": "SIGINT", "exit_code": 75}, False),
        ({"asked": "SIGTERM", "exit_code": 75}, True),
    ],
)
def test_three_attempts_without_progress_are_enough(change: dict[str, object], expected: bool) -> None:
    history = [FAILED, replace(FAILED, **change), FAILED]  # type: ignore[arg-type]
    why = hopeless(history)
    assert (why is not None) == expected
    if why is not None:
        assert "still step 8" in why
    assert hopeless(history[:2]) is None


def test_evaluations_in_between_change_nothing() -> None:
    evaluation = replace(FAILED, verb="evaluate", exit_code=0)
    assert hopeless([FAILED, FAILED, evaluation, FAILED])
    assert hopeless([FAILED, FAILED, FAILED, evaluation]) is None
