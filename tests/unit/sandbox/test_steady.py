"""Verdicts do not depend on how busy the machine is: the same programs under ever more workers on the same two CPUs."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sandbox import Limits, Pool, Program

CPUS = 2
LIMITS = Limits(cpu_seconds=0.8, wall_seconds=1.5)
"""So short that at 8 workers a CPU a program spends more than its wall time in waiting for one."""
WORKS = """\
from time import process_time


def work(seconds):
    end = process_time() + seconds
    turns = 0
    while process_time() < end:
        turns += 1
    return turns
"""
CHECK = "def check(candidate):\n    assert candidate({}) > 0\n"


def _works(seconds: float, *, apart: bool) -> Program:
    """Right, and busy until its own CPU clock says enough: as long on any machine."""
    if apart:
        return Program(WORKS, entry_point="work", test=CHECK.format(seconds))
    return Program(f"{WORKS}\nassert work({seconds}) > 0")


OTHERS = [
    (Program("while True: pass"), "cpu_limit"),
    (Program("import time\ntime.sleep(60)"), "wall_limit"),
    (Program("def work(x): return 0", entry_point="work", test=CHECK.format(1)), "wrong"),
]


@pytest.fixture
def two_cpus() -> Iterator[None]:
    """Workers take the CPUs of the thread that starts them, so this is a machine of two, whatever it is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CPUS])
    yield
    os.sched_setaffinity(0, before)


def _names(programs: list[Program], factor: int, limits: Limits) -> list[str]:
    with Pool(factor * len(os.sched_getaffinity(0))) as pool:
        return [verdict.name for verdict in pool.run_many(programs, limits)]


@pytest.mark.usefixtures("two_cpus")
def test_eight_times_as_many_workers_as_cpus_change_no_verdict() -> None:
    programs = [_works(0.2 + 0.1 * (place % 3), apart=place % 2 == 0) for place in range(14)]
    expected = ["passed"] * len(programs)
    for place, (program, name) in enumerate(OTHERS):
        programs.insert(4 * place, program)
        expected.insert(4 * place, name)
    assert {factor: _names(programs, factor, LIMITS) for factor in (1, 8)} == {1: expected, 8: expected}


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_up_to_sixteen_times_as_many_change_none() -> None:
    seconds = (0.2, 0.5, 0.8, 1.1, 1.4)
    programs = [_works(seconds[place % 5], apart=place % 2 == 0) for place in range(40)]
    expected = ["passed"] * len(programs)
    for place, (program, name) in enumerate(OTHERS * 4):
        programs.insert(4 * place, program)
        expected.insert(4 * place, name)
    limits = Limits(cpu_seconds=3.0, wall_seconds=9.0)
    for factor in (1, 2, 4, 8, 16):
        assert _names(programs, factor, limits) == expected, factor


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
def test_canonical_solutions_pass_however_many_run_at_once(field_data: Path, factor: int) -> None:
    file = field_data / "humaneval" / "HumanEval.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        tasks = [json.loads(line) for line in lines]
    programs = [
        Program(
            task["prompt"] + task["canonical_solution"],
            entry_point=task["entry_point"],
            test=task["test"],
            context=task["prompt"],
        )
        for task in tasks
    ]
    names = _names(programs * 2, factor, Limits(cpu_seconds=1.0, wall_seconds=3.0))
    failed = {tasks[place % 164]["task_id"]: name for place, name in enumerate(names) if name != "passed"}
    assert not failed
