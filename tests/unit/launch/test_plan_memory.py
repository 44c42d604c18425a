"""The benchmark of the plan's memory fails where a case does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found() -> Iterator[ModuleType]:
    """The benchmark's own functions; scripts find each other beside themselves."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("allocation.result")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize(
    ("strategy", "planned", "ledger", "memtracker", "told"),
    [
        ("none", 104, 100, 100, []),
        ("zero2", 104, 100, None, []),
        ("zero2", 104, None, None, ["the ranks failed under the ledger"]),
        ("ddp", 104, 100, None, ["the ranks failed under MemTracker"]),
        ("ddp", 104, None, 100, ["the ranks failed under the ledger"]),
        ("none", 106, 100, 100, ["off by +6.0%"]),
        ("zero3", 94, 100, None, ["off by -6.0%"]),
    ],
)
def test_a_case_that_failed_or_is_far_off_is_an_error(
    found: Any, strategy: str, planned: int, ledger: int | None, memtracker: int | None, told: list[str]
) -> None:
    result = found.Result(found.Case(strategy), "loss", planned, ledger, memtracker)
    faults = list(found.faults([result]))
    assert len(faults) == len(told)
    for fault, words in zip(faults, told, strict=True):
        assert words in fault and result.case.name in fault
