"""The range test: its curve, what is read off it, and when it has seen enough."""

from __future__ import annotations

import xml.etree.ElementTree as xml

import pytest

from launch import curve
from launch.lr import Watch, read_off, smoothed

RATES = [10 ** (-6 + step / 10) for step in range(60)]
# Flat, then a fall around 1e-3, then up and away.
LOSSES = [3 - 2 / (1 + (1e-3 / rate) ** 2) + (rate / 0.1) ** 2 for rate in RATES]


def test_the_steepest_fall_lies_before_the_bottom() -> None:
    found = read_off(smoothed(list(zip(RATES, LOSSES, strict=True))))
    assert found.steepest is not None and found.lowest is not None
    assert 3e-4 < found.steepest < 1e-2 and found.steepest < found.lowest


def test_a_loss_that_only_rises_has_no_place_to_begin() -> None:
    found = read_off(smoothed([(rate, 1 + at) for at, rate in enumerate(RATES)]))
    assert found.steepest is None


def test_smoothing_starts_at_the_first_loss_and_keeps_a_constant() -> None:
    assert [point.smooth for point in smoothed([(0.1, 2.0), (0.2, 2.0)])] == pytest.approx([2.0, 2.0])


def test_enough_is_a_loss_far_above_its_best() -> None:
    watch = Watch()
    assert not watch({"step": 1, "validation_loss": 1.0})
    assert not watch({"step": 1, "loss": 2.0}) and not watch({"step": 2, "loss": 7.9})
    assert watch({"step": 3, "loss": 8.1}) and Watch()({"step": 1, "loss": float("nan")})


def test_both_drawings_hold_the_whole_curve() -> None:
    smooth = [point.smooth for point in smoothed(list(zip(RATES, LOSSES, strict=True)))]
    picture = xml.fromstring(curve.picture(RATES, LOSSES, smooth, mark=1e-3))
    assert len(picture.findall(".//{*}circle")) == len(RATES)
    drawn = curve.text(RATES, smooth)
    assert drawn.count("•") > 30 and "1.0e-06" in drawn
