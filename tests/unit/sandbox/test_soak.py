"""A soak in small: thousands of programs, a tenth of them hostile, through one pool that must end as it began."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def soak(root: Path) -> Iterator[ModuleType]:
    """The benchmark's own functions; scripts find each other beside themselves."""
    folder = str(root / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("sandbox_soak")
    finally:
        sys.path.remove(folder)


def _wish(soak: ModuleType, programs: int, every: int) -> object:
    data = os.environ.get("TEMPER_DATA")
    return soak.Soak(programs, every=every, data=Path(data) if data and Path(data).is_dir() else None)


@pytest.mark.slow
def test_four_thousand_programs_leave_nothing_behind(soak: ModuleType) -> None:
    record = soak.run(_wish(soak, 4000, 1000))
    assert len(record.looks) == 4
    assert not record.faults, "\n".join(record.faults)
    assert not record.grown(), soak.table(record)
    assert record.held


def test_a_tenth_of_the_programs_is_hostile_and_the_same_for_a_seed(soak: ModuleType) -> None:
    wish = soak.Soak(2000)
    first, again = (list(soak.programs(wish, "full")) for _ in range(2))
    assert [trial.name for trial in first] == [trial.name for trial in again]
    attacks = {trial.name for trial in soak.hostile.trials()}
    assert 150 < sum(trial.name in attacks for trial in first) < 250
    assert len({trial.name for trial in first} & attacks) > 50
    honest = soak.honest.trials("full", None)
    assert {trial.program.test is None for trial in honest} == {True, False}
    assert {trial.allowed for trial in honest} >= {("passed",), ("wrong",)}


def test_growth_and_wrong_verdicts_are_noticed(soak: ModuleType) -> None:
    """A pool that is left with one more descriptor, and a right program held against another verdict."""
    lookout = soak.Lookout()
    record = soak.Record(looks=[lookout.look()])
    with open(os.devnull):
        record.looks.append(lookout.look())
    assert record.grown() == ["supervisor_descriptors"] and not record.held
    assert soak.outcome(record) == "descriptors of the supervisor grew by 1"
    record = soak.Record(looks=record.looks[:1], seconds=1.0)
    with soak.Pool(1) as pool:
        trial = soak.Trial("right, by mistake", soak.Program("x = 1"), ("wrong",))
        soak.run_lot(pool, [trial], record, 1)
    assert record.wrong == 1 and not record.held
    assert "- right, by mistake: passed" in soak.page(soak.Soak(1), record)
    assert record.faults == ["right, by mistake: passed () where wrong was due"]
