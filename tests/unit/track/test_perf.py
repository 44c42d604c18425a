"""Sums of an attempt: every second has a phase, the first step is apart, and a GPU's time is the GPU's."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.heartbeat import STEP_PHASES, Where
from engine.track import Perf

DURATION = 0.004


def one_step(perf: Perf, where: Where, step: int, *, watched: bool = True, slow: float = 1.0) -> None:
    perf.begin(watched=watched)
    for phase in STEP_PHASES[:-1]:
        where.at(phase, step if phase == "data" else None)
        time.sleep(DURATION * slow)
        if phase == "data":
            perf.take(places=100, attended=500)
    where.at("log")
    perf.step(tokens=180, trained_tokens=90)


def test_every_second_of_the_loop_has_its_phase_and_the_first_step_is_apart() -> None:
    where = Where()
    where.at("model")
    time.sleep(0.03)
    perf = Perf(where)
    where.at("forward")
    time.sleep(0.03)
    perf.take(places=7, attended=7)
    where.at("resume")
    began = time.monotonic()
    for step in (1, 2, 3):
        one_step(perf, where, step, slow=10 if step == 1 else 1)
    where.at("save")
    time.sleep(0.02)
    perf.saved(0.02)
    perf.saved(0.04)
    totals = perf.totals()
    assert sum(totals.seconds.values()) == pytest.approx(time.monotonic() - began, abs=0.005)
    assert totals.seconds["first step"] >= 5 * 10 * DURATION
    assert 0.02 <= totals.seconds["save"] < 0.2 and totals.seconds["evaluate"] == 0
    assert totals.all.steps == 3 and totals.warm.steps == 2
    assert (totals.warm.tokens, totals.warm.trained_tokens) == (360, 180)
    assert (totals.all.places, totals.warm.attended) == (300, 1000)
    assert totals.warm_seconds == pytest.approx(sum(totals.seconds[phase] for phase in STEP_PHASES))
    assert (totals.saves, totals.save_seconds, totals.longest_save) == (2, pytest.approx(0.06), 0.04)
    assert totals.device == {} and totals.watched == 0


def test_an_only_step_is_told_though_it_is_the_first() -> None:
    where = Where()
    perf = Perf(where)
    assert perf.totals().all.steps == 0
    one_step(perf, where, 7)
    totals = perf.totals()
    assert totals.warm == totals.all and totals.warm.tokens == 180
    assert totals.warm_seconds == totals.seconds["first step"] >= 5 * DURATION


class Event:
    """Stands in for a CUDA event: its device's clock goes on by 3 ms a record."""

    recorded = 0
    waited = 0

    def __init__(self) -> None:
        self.at = 0

    def record(self) -> None:
        Event.recorded += 1
        self.at = 3 * Event.recorded

    def synchronize(self) -> None:
        Event.waited += 1

    def elapsed_time(self, later: Any) -> float:
        return later.at - self.at


def test_a_device_is_asked_for_its_time_in_logged_steps_only() -> None:
    where = Where()
    perf = Perf(where, event=Event)
    for step in range(1, 7):
        one_step(perf, where, step, watched=step in (1, 3, 5))
    totals = perf.totals()
    assert totals.watched == Event.waited == 2, "the first step warms the device up and is left out"
    assert Event.recorded == 2 * (len(STEP_PHASES) + 1), "nothing is kept of the steps between"
    assert totals.device == pytest.approx(dict.fromkeys(STEP_PHASES, 2 * 0.003))
    assert where.heard is None
