"""Who hangs: the one behind, the stopped one, the one elsewhere; and never somebody who is only slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.heartbeat import PHASES, Beat
from launch.hang import Limits, Sight, judge, outliers, told_apart

LIMITS = Limits(in_step=300, elsewhere=1800)


def beat(count: int, phase: str = "backward", step: int | None = 7, seconds: float = 2.0) -> Beat:
    nothing = dict.fromkeys(PHASES, 0.0)
    return Beat(count, count, phase, step, 1, 0.0, (seconds,) * 5 if step else (), nothing, nothing)


def sight(rank: int, count: int, silent: float, state: str = "S", phase: str = "backward") -> Sight:
    return Sight(rank, "node-b", beat(count, phase), silent, state, silent if state == "T" else 0.0)


def test_a_stopped_rank_is_named_within_three_steps_and_five_seconds() -> None:
    sights = [sight(0, 40, 9.0), sight(1, 39, 10.5, "T", "forward"), sight(2, 40, 9.0)]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and hang.over and hang.ranks == (1,)
    assert hang.sentence == (
        "Rank 1 on node-b has been silent for 10 s at step 7, forward, while 2 others wait for it: stopped (state T)"
    )
    assert judge([*sights[:1], replace(sights[1], silent=7.9)], LIMITS, lockstep=True) is None
    assert judge([replace(sights[0], state="T", stopped=1.0), *sights[1:]], LIMITS, lockstep=True) == hang, (
        "who was stopped while it waited keeps nobody waiting yet"
    )
    assert judge(sights, replace(LIMITS, in_step=0), lockstep=True) == replace(hang, over=False)


def test_all_stopped_is_somebodys_pause() -> None:
    sights = [sight(0, 40, 900.0, "T"), sight(1, 40, 900.0, "T")]
    assert judge(sights, replace(LIMITS, in_step=10_000), lockstep=True) is None


def test_a_silent_rank_behind_the_others_is_named_soon_and_ended_late() -> None:
    sights = [sight(0, 40, 8.5), sight(1, 38, 9.0, "S", "data")]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and not hang.over and hang.ranks == (1,) and hang.patience == 300
    assert "at step 7, data, while 1 other waits for it: sleeping" in hang.sentence
    late = [replace(each, silent=301.0) for each in sights]
    assert judge(late, LIMITS, lockstep=True) == replace(
        hang, over=True, sentence=hang.sentence.replace("for 9 s", "for 301 s")
    )


@pytest.mark.parametrize("phase", ["prepare", "model", "evaluate"])
def test_what_may_take_hours_is_never_ended(phase: str) -> None:
    assert judge([sight(rank, 40, 1e5, phase=phase) for rank in (0, 1)], LIMITS, lockstep=True) is None


def test_in_a_first_step_nobody_is_named_for_being_slow() -> None:
    sights = [Sight(rank, "a", beat(40 - rank, step=1, seconds=0), 9.0, "S") for rank in (0, 1)]
    assert (
        judge(
            [replace(each, beat=replace(each.beat, durations=())) for each in sights], LIMITS, lockstep=True
        )
        is None
    )
    assert judge(sights, LIMITS, lockstep=True) is not None


def test_a_phase_may_take_ten_times_its_longest() -> None:
    longest = {**dict.fromkeys(PHASES, 0.0), "data": 60.0}
    behind = sight(1, 38, 500.0, "S", "data")
    sights = [sight(0, 40, 499.0), replace(behind, beat=replace(behind.beat, longest=longest))]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and not hang.over and hang.patience == 600


def test_nobody_is_named_while_somebody_moves() -> None:
    assert judge([sight(0, 40, 0.2), sight(1, 38, 60.0)], LIMITS, lockstep=True) is None


def test_ranks_that_do_not_wait_for_each_other_are_not_compared() -> None:
    sights = [sight(0, 40, 400.0, phase="evaluate"), sight(1, 3, 4000.0, phase="evaluate")]
    assert judge(sights, LIMITS, lockstep=False) is None
    hang = judge([sights[0], replace(sights[1], state="T", stopped=9.0)], LIMITS, lockstep=False)
    assert hang is not None and hang.ranks == (1,)


@pytest.mark.parametrize(("phase", "silent", "over"), [("save", 1700, False), ("save", 1801, True)])
def test_saving_has_a_longer_patience(phase: str, silent: float, over: bool) -> None:
    hang = judge([sight(rank, 40, silent, phase=phase) for rank in (0, 1)], LIMITS, lockstep=True)
    assert (hang is not None) == over
    if hang is not None:
        assert (
            "All 2 ranks have been silent for 1801 s" in hang.sentence and "none is behind" in hang.sentence
        )


def test_the_one_that_waits_for_a_disk_is_told_from_those_that_wait_for_it() -> None:
    sights = [sight(0, 40, 301.0), sight(1, 40, 301.0, "D"), sight(2, 40, 301.0)]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and hang.ranks == (1,) and "file system that hangs" in hang.sentence


def test_the_one_a_debugger_holds_is_named_in_the_phase_of_those_that_wait_for_it() -> None:
    sights = [sight(0, 40, 10.0), sight(1, 40, 10.0, "t")]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and hang.ranks == (1,) and not hang.over
    assert "while 1 other waits for it: held by a debugger (state t)" in hang.sentence
    assert judge([sight(rank, 40, 10.0, "t") for rank in (0, 1)], LIMITS, lockstep=True) is None


def test_ranks_elsewhere_may_be_the_ones_waited_for_unless_one_here_is_stopped() -> None:
    sights = [sight(0, 40, 900.0), sight(1, 38, 901.0)]
    assert judge(sights, LIMITS, lockstep=True, elsewhere=2) is None
    hang = judge([sight(1, 38, 10.0, "T")], LIMITS, lockstep=True, elsewhere=3)
    assert hang is not None and hang.over and "while 3 others wait for it: stopped" in hang.sentence


def test_stacks_tell_ranks_of_one_phase_apart() -> None:
    sights = [sight(rank, 40, 301.0) for rank in range(3)]
    hang = judge(sights, LIMITS, lockstep=True)
    assert hang is not None and hang.ranks == (0, 1, 2)
    waiting = "all_reduce at torch/distributed/distributed_c10d.py:3000"
    told = told_apart(hang, sights, {0: waiting, 1: waiting, 2: "read at rows.py:7"})
    assert told.ranks == (2,) and told.sentence.endswith("sleeping (state S), in read at rows.py:7")
    assert told_apart(hang, sights, dict.fromkeys(range(3), waiting)).ranks == (0, 1, 2)


def test_outliers() -> None:
    wait = "all_reduce at torch/distributed/x.py:1"
    assert outliers({0: wait, 1: "f at a.py:1"}) == {1}
    assert outliers({0: "g at b.py:1", 1: "g at b.py:1", 2: "f at a.py:1"}) == {2}
    assert outliers({0: "g at b.py:1", 1: "f at a.py:1"}) == set()
    assert outliers({}) == set()
