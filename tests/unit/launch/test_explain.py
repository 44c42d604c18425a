"""What happened and where the time went: every second is counted once, and lost work is no goodput."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import WishError
from engine.heartbeat import PHASES
from launch import attempts
from launch.attempts import Attempt
from launch.explain import SPENT_ON, account, explain

FIRST = Attempt(
    number=1,
    verb="train",
    hosts=("node-a",),
    ranks=2,
    started=1000.0,
    ended=1100.0,
    first_step=1,
    last_step=10,
    saved_before=None,
    saved=8,
    asked=None,
    exit_code=1,
    rank=1,
    sentence="Rank 1 on node-a died first at step 10, forward: ValueError: bad.",
    seconds={"start": 5.0, "data": 10.0, "forward": 30.0, "backward": 40.0, "save": 8.0},
)
SECOND = replace(
    FIRST,
    number=2,
    started=1150.0,
    ended=1200.0,
    first_step=9,
    last_step=12,
    saved_before=8,
    saved=12,
    exit_code=0,
    rank=None,
    sentence="Finished after step 12 in 50 s.",
    seconds={"forward": 20.0, "validate": 6.0, "finish": 4.0},
)


def test_every_phase_is_counted_as_something() -> None:
    assert set(SPENT_ON) == set(PHASES)


def test_every_second_is_counted_once_and_lost_steps_are_no_goodput() -> None:
    found = account([FIRST, SECOND])
    assert sum(found.seconds.values()) == pytest.approx(SECOND.ended - FIRST.started)
    assert found.steps_lost == 2, "steps 9 and 10 were taken and not saved"
    assert found.seconds == pytest.approx(
        {
            "train": 70 * 0.8 + 20,
            "data": 10 * 0.8,
            "evaluate": 6,
            "save": 12,
            "start": 5 + 7 + 20,
            "redone": 80 * 0.2,
            "idle": 50,
        }
    )
    assert found.goodput == pytest.approx(76 / 200)


def test_an_attempt_that_came_to_no_step_is_all_start() -> None:
    none = replace(FIRST, first_step=None, last_step=None, saved=None, seconds={})
    found = account([none])
    assert found.seconds["start"] == 100 and found.goodput == 0 and found.steps_lost == 0


def test_the_account_is_told_attempt_by_attempt(tmp_path: Path) -> None:
    attempts.append(tmp_path, FIRST)
    attempts.append(tmp_path, replace(SECOND, number=3))
    (tmp_path / "logs" / "attempt-1").mkdir(parents=True)
    done = CliRunner().invoke(explain, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    for words in (
        "attempt 1: train",
        "2 ranks on node-a",
        "steps 1 to 10, newest checkpoint step 8",
        "Rank 1 on node-a died first at step 10, forward: ValueError: bad. (exit code 1)",
        "logs/attempt-1",
        "attempt 2: left no word",
        "Finished after step 12",
        "38% of it in steps that count",
        "steps taken and lost: 2",
    ):
        assert words in done.output
    as_json = CliRunner().invoke(explain, [str(tmp_path), "--json"])
    assert '"goodput": 0.38' in as_json.output


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ('{"summary": ["perf: 9 tokens/s"]}', True),
        ('{"summ', False),
        ("[]", False),
        ('{"summary": 3}', False),
    ],
)
def test_the_speed_is_told_where_a_card_can_be_read(tmp_path: Path, card: str, shown: bool) -> None:
    attempts.append(tmp_path, SECOND)
    (tmp_path / "perf.json").write_text(card)
    done = CliRunner().invoke(explain, [str(tmp_path)])
    assert done.exit_code == 0 and ("perf: 9 tokens/s" in done.output) == shown


def test_a_folder_without_attempts_is_refused_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").touch()
    for place, fix in (
        (tmp_path, "started by `temper train`"),
        (tmp_path / "run.yaml", "`output` in the run"),
    ):
        done = CliRunner().invoke(explain, [str(place)])
        assert isinstance(done.exception, WishError) and fix in str(done.exception)
