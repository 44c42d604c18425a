"""How fast this machine judges programs: a short measurement that needs no data, beside an interpreter for each."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from .pool import Pool
from .verdict import Call, Limits, Program

_LIMITS = Limits()
_BATCH = 20
_SINGLES = 100
_COUNT = """
def words(text):
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return counts
"""
_SORT = """
from typing import List

def merge(left: List[int], right: List[int]) -> List[int]:
    out = []
    while left and right:
        out.append((left if left[0] <= right[0] else right).pop(0))
    return out + left + right
"""
_PRIMES = """
import math

def primes(n):
    return [k for k in range(2, n) if all(k % d for d in range(2, math.isqrt(k) + 1))]
"""
_TEST = "def check(candidate):\n    assert candidate([1, 3], [2]) == [1, 2, 3]\n    assert candidate([], []) == []\n"
PROGRAMS = (
    Program(_COUNT, calls=(Call("words('a b A')", {"a": 2, "b": 1}), Call("words('')", {}))),
    Program(_SORT, entry_point="merge", test=_TEST),
    Program(_SORT.replace("<=", ">"), entry_point="merge", test=_TEST),
    Program(_PRIMES, calls=(Call("primes(30)", [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]),)),
    Program("print(sum(map(int, input().split())))", stdin=b"1 2 3\n"),
    Program("raise ValueError('no')"),
)
"""Short programs in the usual forms, as much of them right as of models' answers."""
WANTED = ("passed", "passed", "wrong", "passed", "passed", "runtime_error")


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the programs, and what it took."""

    way: str
    programs_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """User and system time of all processes, a program."""
    misjudged: int
    """Verdicts that were not the right ones."""


def bench(workers: int, seconds: float, level: str | None = None) -> tuple[str, list[Row]]:
    """The isolation, and a row for each way: reused, fresh where there is such, an interpreter each.

    Raises WishError where this machine cannot give `level`.
    """
    rows = []
    with Pool(1, level) as pool:
        best = pool.level
    for mode in ("reused", "fresh") if best != "process" else ("reused",):
        rows.append(_measured(mode, partial(_in_pool, workers, seconds, level, mode)))
    rows.append(_measured("an interpreter each, no isolation", partial(_interpreters, workers, seconds)))
    return best, rows


@dataclass(frozen=True, slots=True)
class _Run:
    count: int
    wall: float
    latencies: list[float]
    misjudged: int


def _measured(way: str, run: Callable[[], _Run]) -> Row:
    before = _cpu()
    done = run()
    cuts = statistics.quantiles(done.latencies, n=100, method="inclusive")
    cpu = 1000 * (_cpu() - before) / (done.count + len(done.latencies))
    return Row(way, done.count / done.wall, 1000 * cuts[49], 1000 * cuts[98], cpu, done.misjudged)


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _in_pool(workers: int, seconds: float, level: str | None, mode: str) -> _Run:
    with Pool(workers, level, mode=mode) as pool:
        list(pool.run_many(PROGRAMS * workers, _LIMITS))  # so that no first start is in the figures
        names: Counter[tuple[str, str]] = Counter()
        count, started = 0, time.perf_counter()
        while (wall := time.perf_counter() - started) < seconds:
            verdicts = pool.run_many(PROGRAMS * _BATCH, _LIMITS)
            names.update((v.name, WANTED[i % len(WANTED)]) for i, v in enumerate(verdicts))
            count += _BATCH * len(PROGRAMS)
        with ThreadPoolExecutor(workers) as threads:
            latencies = list(
                threads.map(lambda i: _timed(pool, PROGRAMS[i % len(PROGRAMS)]), range(_SINGLES))
            )
    return _Run(count, wall, latencies, sum(n for (name, wanted), n in names.items() if name != wanted))


def _timed(pool: Pool, program: Program) -> float:
    started = time.perf_counter()
    pool.run(program, _LIMITS)
    return time.perf_counter() - started


def _interpreters(workers: int, seconds: float) -> _Run:
    deadline = time.perf_counter() + seconds
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        latencies = [t for ts in threads.map(lambda _: _until(deadline), range(workers)) for t in ts]
    return _Run(len(latencies), time.perf_counter() - started, latencies, 0)


def _until(deadline: float) -> list[float]:
    latencies: list[float] = []
    while time.perf_counter() < deadline or len(latencies) < 2:
        program = PROGRAMS[len(latencies) % len(PROGRAMS)]
        started = time.perf_counter()
        command = [sys.executable, "-I", "-S", "-c", program.source]
        subprocess.run(command, input=program.stdin, capture_output=True, check=False, env={}, cwd=os.sep)
        latencies.append(time.perf_counter() - started)
    return latencies
