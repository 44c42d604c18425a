"""From programs to verdicts, streaming; the sandbox's own failures are kept apart from the programs'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from engine.evaluate.task import Steps, Task
from engine.sandbox import Limits, Pool, Program, Trial, Verdict

ATTEMPTS = 3
"""How often a program is tried before `infra` stands; it is then not scored, and the command fails."""


class Judge(Protocol):
    """Decides on programs, as each benchmark does."""

    def judge(self, task: Task, program: Program) -> Steps:
        """The runs that decide, one after another, and the verdict they come to."""


@dataclass(frozen=True, slots=True)
class Court:
    """How programs are judged."""

    limits: Limits = Limits()
    level: str | None = None
    """Least isolation accepted; None: the best this kernel grants."""
    workers: int = 2
    mode: str = "reused"
    """Whether programs share a jail that is cleaned between them, or each has a fresh one."""
    preload: tuple[str, ...] = ()
    """Modules programs may import besides the standard library's."""
    engine: str | None = None
    """An outer engine (runsc, podman) to run each program in."""
    packages: tuple[str, ...] = ()
    """Modules programs may import that are not imported for them beforehand."""

    def pool(self, workers: int | None = None) -> Pool:
        """The sandbox; with so many workers, for those who want another number.

        Raises:
            WishError: this kernel does not grant the isolation asked for, or a module is not here.
        """
        return Pool(
            workers or self.workers,
            self.level,
            mode=self.mode,
            preload=self.preload,
            engine=self.engine,
            packages=self.packages,
        )


def judge(
    benchmark: Judge, count: int, answer: Callable[[int], tuple[Task, Program]], court: Court
) -> Iterator[tuple[int, Verdict]]:
    """Run programs.

    Args:
        benchmark: whose `judge` decides.
        count: how many programs there are.
        answer: makes one by its index, and names its task, when a worker is near to it: tens of thousands would
            fill memory.
        court: how to judge them.

    Yields:
        (index, verdict) once for each program, in order, but those the sandbox itself failed on come last,
        after further attempts; their verdict may still be `infra`.

    Raises:
        WishError: this kernel does not grant the isolation asked for.
    """
    if not count:
        return
    waiting = list(range(count))
    with court.pool() as pool:
        for attempt in range(1, ATTEMPTS + 1):
            failed: list[int] = []
            trials = (trial(benchmark, *answer(index), pool, court.limits) for index in waiting)
            for index, verdict in zip(waiting, pool.in_order(trials), strict=True):
                if verdict.name == "infra" and attempt < ATTEMPTS:
                    failed.append(index)
                else:
                    yield index, verdict
            waiting = failed
            if not waiting:
                return


def trial(benchmark: Judge, task: Task, program: Program, pool: Pool, asked: Limits) -> Trial:
    """The judgement of one program, not yet begun."""
    limits = in_force(asked, task)
    return program, lambda: _follow(benchmark.judge(task, program), pool, limits)


def _follow(steps: Steps, pool: Pool, limits: Limits) -> Future[Verdict]:
    """Run a judgement's programs one after another; no thread waits for them."""
    final: Future[Verdict] = Future()
    final.set_running_or_notify_cancel()

    def go_on(run: Future[Verdict] | None) -> None:
        try:
            program = next(steps) if run is None else steps.send(run.result())
            pool.submit(program, limits).add_done_callback(go_on)
        except StopIteration as end:
            final.set_result(end.value)
        except Exception as error:
            final.set_exception(error)

    go_on(None)
    return final


def in_force(asked: Limits, task: Task) -> Limits:
    """Those asked for, raised to what a right answer to this task may need."""
    cpu = max(asked.cpu_seconds, task.cpu_seconds)
    wall = max(asked.wall_seconds, 3 * cpu) if cpu > asked.cpu_seconds else asked.wall_seconds
    memory, output = max(asked.memory_mb, task.memory_mb), max(asked.output_kb, task.output_kb)
    return replace(asked, cpu_seconds=cpu, wall_seconds=wall, memory_mb=memory, output_kb=output)
