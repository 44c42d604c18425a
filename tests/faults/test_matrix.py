"""One hundred ways for a rank of three, or the launcher, to go wrong: the right one is named, and nothing is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))

from faulty.case import Case, cases
from faulty.trial import possible, under_temper

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_right_one_is_named(case: Case) -> None:
    if not possible(case):
        pytest.skip(f"{case.fault} needs root, and a control group for memory")
    trial = under_temper(case)
    assert trial.exit_code not in (0, None)
    assert not trial.survivors
    assert trial.right, trial
