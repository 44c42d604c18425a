"""How passing programs' run time and memory compare with the reference solution's, measured in the same sandbox.

Each program takes turns with its task's reference on one worker, so that what disturbs the machine disturbs both. What
the sandbox itself takes is measured on an empty program and subtracted; where the reference takes no more than a few
times the scatter of that, there is no ratio: it would be one of two noises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import exp, fsum, log
from statistics import median, quantiles
from typing import Any, Literal

from engine.errors import WishError
from engine.evaluate.benchmarks import Benchmark
from engine.evaluate.judge import Court, trial
from engine.evaluate.task import Task
from engine.sandbox import Call, Pool, Program, Verdict

EFFICIENCY = "efficiency.jsonl"
CLEAR = 5.0
"""How many times the floor's scatter a reference must take for a ratio to it."""
LEAST_CPU_SECONDS = 1e-4
"""Scatter is taken for no less: what a fork varies by on a quiet machine."""
LEAST_MEMORY_MB = 0.2
"""So that a reference must take 1 MB: Python asks the kernel for memory in pieces of that size."""
FLOOR_RUNS = 30
WITHIN = 1.1
WORST = 5
_EMPTY = {
    "test": Program("", entry_point="f", test="def check(candidate):\n    pass\n"),
    "together": Program("", test="pass", together=True),
    "calls": Program("", calls=(Call("None", None),)),
    "script": Program(""),
}
"""What the sandbox takes for each form of judgement."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A program that passed, and the samples that are this program."""

    task: Task
    program: Program
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One program beside its task's reference: medians less the floor, CPU seconds and MB; a line of the file."""

    task_id: str
    samples: tuple[int, ...]
    cpu_seconds: float
    reference_cpu_seconds: float
    cpu_ratio: float | None
    """None: the reference is below the clock."""
    memory_mb: float
    reference_memory_mb: float
    memory_ratio: float | None


LeftOut = Literal["without_reference", "unsteady", "infra"]
"""Why a program is beside no reference: there is none that passes, it did not pass each time, or the sandbox failed."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a ratio over programs; the figures are None where no program has one."""

    programs: int
    below_the_clock: int
    geometric_mean: float | None = None
    quartiles: tuple[float, float, float] | None = None
    within: float | None = None
    """Share of the programs that take at most 1.1 times what the reference does."""
    worst: tuple[tuple[str, float], ...] = ()
    """The tasks with the largest ratios, each with its largest."""

    @classmethod
    def of(cls, found: Iterable[tuple[str, float | None]]) -> Spread:
        """From (task, ratio) of each program."""
        found = list(found)
        known = [(task, ratio) for task, ratio in found if ratio is not None]
        if not known:
            return cls(0, len(found))
        ratios = [ratio for _, ratio in known]
        largest: dict[str, float] = {}
        for task, ratio in known:
            largest[task] = max(ratio, largest.get(task, 0.0))
        first, second, third = quantiles(ratios, n=4, method="inclusive") if ratios[1:] else ratios * 3
        return cls(
            programs=len(known),
            below_the_clock=len(found) - len(known),
            geometric_mean=exp(fsum(map(log, ratios)) / len(ratios)),
            quartiles=(first, second, third),
            within=sum(ratio <= WITHIN for ratio in ratios) / len(ratios),
            worst=tuple(sorted(largest.items(), key=lambda pair: -pair[1])[:WORST]),
        )

    def line(self, name: str) -> str:
        """The figures for a person to read."""
        if self.geometric_mean is None or self.quartiles is None or self.within is None:
            return f"  {name:9} no ratio: {self.below_the_clock} programs whose reference is below the clock"
        low, middle, high = self.quartiles
        worst = ", ".join(f"{task} {ratio:.3g}" for task, ratio in self.worst)
        return (
            f"  {name:9} geometric mean {self.geometric_mean:.2f}, quartiles {low:.2f} {middle:.2f} {high:.2f}, "
            f"{self.within:.0%} within {WITHIN:g}x ({self.programs} programs, {self.below_the_clock} below the clock)\n"
            f"  {'':9} worst: {worst}"
        )


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What measuring came to."""

    repeats: int
    compared: tuple[Compared, ...]
    without_reference: int
    """Programs of tasks that come without a reference, or whose reference does not pass."""
    unsteady: int
    """Programs that passed once, and not each time they were measured."""

    @classmethod
    def of(cls, repeats: int, outcomes: Iterable[Compared | LeftOut]) -> Efficiency:
        """From the outcome of each program."""
        found = list(outcomes)
        return cls(
            repeats,
            compared=tuple(one for one in found if isinstance(one, Compared)),
            without_reference=found.count("without_reference"),
            unsteady=found.count("unsteady") + found.count("infra"),
        )

    @property
    def run_time(self) -> Spread:
        """Ratios of CPU time."""
        return Spread.of((one.task_id, one.cpu_ratio) for one in self.compared)

    @property
    def memory(self) -> Spread:
        """Ratios of peak memory."""
        return Spread.of((one.task_id, one.memory_ratio) for one in self.compared)

    def as_json(self) -> dict[str, Any]:
        """This part of summary.json and of what `temper score --json` prints."""
        return {
            "repeats": self.repeats,
            "without_reference": self.without_reference,
            "unsteady": self.unsteady,
            "run_time": asdict(self.run_time),
            "memory": asdict(self.memory),
        }

    def lines(self) -> list[str]:
        """For a person to read."""
        left = [
            f"{count} {what}"
            for count, what in (
                (self.without_reference, "without a reference that passes"),
                (self.unsteady, "that did not pass again"),
            )
            if count
        ]
        tail = f"; left out: {', '.join(left)}" if left else ""
        head = f"efficiency against the reference, {self.repeats} runs each{tail}"
        if not self.compared:
            return [head, "  no program to compare"]
        return [head, self.run_time.line("run time"), self.memory.line("memory")]


def distinct(passed: Iterable[tuple[Task, int, Program]]) -> list[Passing]:
    """Each program of a task once, from (task, sample, program) of each sample."""
    samples: dict[tuple[str, str], list[int]] = {}
    first: dict[tuple[str, str], tuple[Task, Program]] = {}
    for task, sample, program in passed:
        key = task.id, program.source
        first.setdefault(key, (task, program))
        samples.setdefault(key, []).append(sample)
    return [Passing(*first[key], tuple(numbers)) for key, numbers in samples.items()]


def demand_python(tasks: Iterable[Task]) -> None:
    """Raise WishError for tasks in other languages: their floor is a toolchain's, which is not measured."""
    other = next((task for task in tasks if task.language != "python"), None)
    if other:
        raise WishError(
            f"task {other.id} is in {other.language}; efficiency and static facts are of Python programs",
            "leave out efficiency and static",
        )


def compare(
    benchmark: Benchmark, passing: Sequence[Passing], court: Court, *, repeats: int
) -> Iterator[Compared | LeftOut]:
    """Run each program and its task's reference in turn; yields what came of each.

    Args:
        benchmark: whose `judge` runs them, with all tests.
        passing: the programs.
        court: how they were judged; one worker of it is used, whatever it has.
        repeats: runs of each of the two.

    Raises:
        WishError: this kernel does not grant the isolation asked for.
    """
    if not passing:
        return
    with court.pool(workers=1) as pool:
        floors: dict[str, _Floor] = {}
        for one in passing:
            runs = _in_turn(benchmark, one, pool, court, repeats) if one.task.reference else ([], [])
            if any(verdict.name == "infra" for verdict in [*runs[0], *runs[1]]):
                yield "infra"
            elif not all(verdict.passed for verdict in runs[0]) or not runs[0]:
                yield "without_reference"
            elif not all(verdict.passed for verdict in runs[1]):
                yield "unsteady"
            else:
                form = runs[0][0].form
                if form not in floors:
                    floors[form] = _Floor.of(pool, form)
                yield floors[form].compare(one, *runs)


def measure(
    benchmark: Benchmark,
    passing: Sequence[Passing],
    court: Court,
    *,
    repeats: int,
    progress: Callable[[int, int], None] | None = None,
) -> Efficiency:
    """Compare all, telling `progress` (done, all); arguments and errors are those of `compare`."""
    outcomes: list[Compared | LeftOut] = []
    for outcome in compare(benchmark, passing, court, repeats=repeats):
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes), len(passing))
    return Efficiency.of(repeats, outcomes)


def _in_turn(
    benchmark: Benchmark, one: Passing, pool: Pool, court: Court, repeats: int
) -> tuple[list[Verdict], list[Verdict]]:
    """Verdicts on the reference and on the program; each goes first as often as the other."""
    pair = (benchmark.program(one.task, one.task.reference), one.program)
    runs: tuple[list[Verdict], list[Verdict]] = ([], [])
    for number in range(repeats):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            _, begin = trial(benchmark, one.task, pair[place], pool, court.limits)
            runs[place].append(begin().result())
            if not runs[place][-1].passed:
                return runs
    return runs


@dataclass(frozen=True, slots=True)
class _Floor:
    """What an empty program takes, and by how much that varies."""

    cpu_seconds: float
    cpu_scatter: float
    memory_mb: float
    memory_scatter: float

    @classmethod
    def of(cls, pool: Pool, form: str) -> _Floor:
        runs = [pool.run(_EMPTY[form]) for _ in range(FLOOR_RUNS)]
        cpu = quantiles([verdict.cpu_seconds for verdict in runs], n=4)
        memory = quantiles([verdict.peak_memory_mb for verdict in runs], n=4)
        return cls(
            cpu_seconds=cpu[1],
            cpu_scatter=max(cpu[2] - cpu[0], LEAST_CPU_SECONDS),
            memory_mb=memory[1],
            memory_scatter=max(memory[2] - memory[0], LEAST_MEMORY_MB),
        )

    def compare(self, one: Passing, reference: list[Verdict], program: list[Verdict]) -> Compared:
        ours, theirs = (
            (
                max(median(verdict.cpu_seconds for verdict in runs) - self.cpu_seconds, 0.0),
                max(median(verdict.peak_memory_mb for verdict in runs) - self.memory_mb, 0.0),
            )
            for runs in (program, reference)
        )
        return Compared(
            task_id=one.task.id,
            samples=one.samples,
            cpu_seconds=round(ours[0], 6),
            reference_cpu_seconds=round(theirs[0], 6),
            cpu_ratio=_ratio(ours[0], theirs[0], self.cpu_scatter),
            memory_mb=round(ours[1], 3),
            reference_memory_mb=round(theirs[1], 3),
            memory_ratio=_ratio(ours[1], theirs[1], self.memory_scatter),
        )


def _ratio(ours: float, theirs: float, scatter: float) -> float | None:
    """A program below the clock counts as one that takes the scatter; a reference below it makes no ratio."""
    return round(max(ours, scatter) / theirs, 4) if theirs >= CLEAR * scatter else None
