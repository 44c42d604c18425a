"""Temper's sandbox as a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

from .task import FAILED, PASSED, TIMED_OUT, Open, Outcome, Setting, Task, Unavailable

_WALL_FACTOR = 3.0
"""CPU time decides; wall time, as by the sandbox's defaults three times as much, only ends sleepers."""


@contextmanager
def reused(setting: Setting) -> Iterator[Open]:
    """Programs one after another in a worker's namespaces."""
    with _pool(setting, "reused") as opened:
        yield opened


@contextmanager
def fresh(setting: Setting) -> Iterator[Open]:
    """Namespaces of its own for each program."""
    with _pool(setting, "fresh") as opened:
        yield opened


@contextmanager
def _pool(setting: Setting, mode: str) -> Iterator[Open]:
    from engine.errors import WishError
    from engine.sandbox import Limits, Pool, Program

    limits = Limits(cpu_seconds=setting.limit_seconds, wall_seconds=_WALL_FACTOR * setting.limit_seconds)
    try:
        pool = Pool(setting.workers, mode=mode, preload=setting.packages)
    except WishError as error:
        raise Unavailable(str(error)) from None

    def program(task: Task) -> Program:
        if not task.test:
            return Program(task.source)
        return Program(task.source, entry_point=task.entry_point, test=task.test, context=task.context)

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        return [Outcome(_letter(verdict.name)) for verdict in pool.run_many(map(program, tasks), limits)]

    def one(task: Task) -> Outcome:
        started = perf_counter()
        verdict = pool.run(program(task), limits)
        return Outcome(_letter(verdict.name), perf_counter() - started)

    def single(tasks: Sequence[Task]) -> list[Outcome]:
        with ThreadPoolExecutor(setting.workers) as threads:
            return list(threads.map(one, tasks))

    with pool:
        yield Open(judge, single, note=f"isolation {pool.level}")


def _letter(name: str) -> str:
    if name == "passed":
        return PASSED
    return TIMED_OUT if name in ("cpu_limit", "wall_limit") else FAILED
