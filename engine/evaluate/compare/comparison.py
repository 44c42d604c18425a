"""The comparison itself: tasks joined, the paired test, and for each task that changed where it differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.errors import WishError
from engine.evaluate.compare.paired import Paired, paired
from engine.evaluate.compare.side import IN_FORCE, Sampled, Side, read_side
from engine.evaluate.summary import some

GENERATION, EXTRACTION, LIMITS, EXECUTION = "generation", "extraction", "limits", "execution"
PROGRAM, SAMPLES, UNKNOWN = "program", "samples", "unknown"
WHERE = {
    GENERATION: "the models' texts differ",
    EXTRACTION: "the text is the same, the program found in it is not",
    LIMITS: "the program is the same, judged under other limits or isolation",
    EXECUTION: "the program is the same, and so are limits and isolation",
    PROGRAM: "the programs differ, whether by generation or by extraction is unknown: a side tells no texts",
    SAMPLES: "only samples that the other side lacks",
    UNKNOWN: "a side does not tell its programs",
}
"""Where a change can come from, in the order it is looked for."""
JUDGING = ("isolation", "engine", "mode", "preload")


@dataclass(frozen=True, slots=True)
class Change:
    """One sample that passed on one side alone."""

    sample: int
    a: str
    """Verdict."""
    b: str
    where: str
    """One of WHERE."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One task whose pass rate differs."""

    task_id: str
    passed_a: int
    samples_a: int
    """That count."""
    passed_b: int
    samples_b: int
    changes: tuple[Change, ...]
    """Of the samples with the same number on both sides."""

    @property
    def gained(self) -> bool:
        """Whether B's rate is the higher one."""
        return self.passed_b * self.samples_a > self.passed_a * self.samples_b

    @property
    def difference(self) -> float:
        """Of the pass rates, B less A."""
        return self.passed_b / self.samples_b - self.passed_a / self.samples_a

    @property
    def where(self) -> Counter[str]:
        """How many of its changes come from where."""
        return Counter(change.where for change in self.changes) or Counter({SAMPLES: 1})

    def as_json(self) -> dict[str, Any]:
        """Everything, and the direction."""
        return asdict(self) | {"direction": "gained" if self.gained else "lost", "where": dict(self.where)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that differs."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing two evaluations found."""

    a: Side
    b: Side
    result: Paired
    flips: tuple[Flip, ...]
    joined: int
    """Scored samples with the same task and number on both sides."""
    same_programs: int
    """Of these, the ones known to be one program."""
    only_a: tuple[str, ...]
    """Tasks that the other side has no sample of."""
    only_b: tuple[str, ...]
    unscored: tuple[str, ...]
    """Tasks of both sides without a sample that counts on one of them."""
    settings: tuple[Setting, ...]

    @property
    def where(self) -> dict[str, int]:
        """Tasks that changed, by where they differ; one that differs in several places counts for each."""
        found = Counter(place for flip in self.flips for place in flip.where)
        return {name: found[name] for name in WHERE if found[name]}

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "benchmark": self.a.benchmark or self.b.benchmark,
            "benchmark_sha256": self.a.benchmark_sha256 or self.b.benchmark_sha256,
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "pass_at_1": self.result.as_json(),
            "joined_samples": self.joined,
            "same_programs": self.same_programs,
            "where": self.where,
            "flips": [flip.as_json() for flip in self.flips],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "unscored_tasks": list(self.unscored),
            "settings": [asdict(setting) for setting in self.settings],
            "notes": list(self.notes()),
        }

    def notes(self) -> Iterator[str]:
        """What a reader of the figures must know."""
        if self.a.folder.resolve() == self.b.folder.resolve():
            yield "A and B are the same folder"
        for name, side in (("A", self.a), ("B", self.b)):
            if side.benchmark is None:
                yield f"{name} has no summary.json: that it was judged by the same tests is taken on trust"
            if side.unscored:
                yield f"{name}: the sandbox failed on {side.unscored} samples, which are in no figure"
        for name, tasks in (("A", self.only_a), ("B", self.only_b)):
            if tasks:
                yield f"{len(tasks)} tasks are in {name} alone and in no figure: {some(tasks)}"
        if self.unscored:
            yield (
                f"{len(self.unscored)} tasks have no scored sample on one side and are in no figure: "
                + some(self.unscored)
            )
        counts_a, counts_b = self._sample_counts()
        if counts_a != counts_b:
            yield (
                f"A has {_range(counts_a)} samples a task and B {_range(counts_b)}: the test takes rates of "
                "unlike precision for alike"
            )
        untold = sorted(self.a.settings.keys() ^ self.b.settings.keys())
        if untold:
            yield f"{len(untold)} settings are told by one side alone: {some(untold)}"

    def _sample_counts(self) -> tuple[list[int], list[int]]:
        out = {*self.only_a, *self.only_b, *self.unscored}
        tasks = [task for task in self.a.tasks if task not in out]
        return [len(self.a.scored(task)) for task in tasks], [len(self.b.scored(task)) for task in tasks]


def compare(folder_a: Path, folder_b: Path) -> Comparison:
    """Compare two finished evaluations, task by task.

    Args:
        folder_a: an evaluation, what `temper score --out` wrote, or a run folder with one evaluation.
        folder_b: another; differences are B less A.

    Raises:
        WishError: one is not finished or damaged, they were judged by other tests, or no task is in both.
    """
    a, b = read_side(folder_a), read_side(folder_b)
    _demand_one_benchmark(a, b)
    shared = [task for task in a.tasks if task in b.tasks]
    if not shared:
        raise WishError(
            f"{a.folder} and {b.folder} share no task: {some([*a.tasks])} here, {some([*b.tasks])} there",
            "compare evaluations of the same benchmark",
        )
    counted = [task for task in shared if a.scored(task) and b.scored(task)]
    if not counted:
        raise WishError(
            f"none of the {len(shared)} shared tasks has a scored sample on both sides",
            "judge them again: the sandbox failed on all others",
        )
    settings = _differing(a, b)
    limits_differ = any(one.name in JUDGING for one in settings) or _held(a) != _held(b)
    joined = [pair for task in counted for pair in _pairs(task, a, b).values()]
    return Comparison(
        a=a,
        b=b,
        result=paired([_rate(a, task) for task in counted], [_rate(b, task) for task in counted]),
        flips=tuple(
            _flip(task, a, b, limits_differ=limits_differ)
            for task in counted
            if _rate(a, task) != _rate(b, task)
        ),
        joined=len(joined),
        same_programs=sum(_same_program(*pair) is True for pair in joined),
        only_a=tuple(task for task in a.tasks if task not in b.tasks),
        only_b=tuple(task for task in b.tasks if task not in a.tasks),
        unscored=tuple(task for task in shared if not (a.scored(task) and b.scored(task))),
        settings=settings,
    )


def _demand_one_benchmark(a: Side, b: Side) -> None:
    """Raise WishError where the two sides say that other tests judged them."""
    if a.benchmark and b.benchmark and a.benchmark != b.benchmark:
        raise WishError(
            f"{a.folder} was judged by {a.benchmark} and {b.folder} by {b.benchmark}",
            "compare evaluations of the same benchmark",
        )
    if a.benchmark_sha256 and b.benchmark_sha256 and a.benchmark_sha256 != b.benchmark_sha256:
        raise WishError(
            f"the two were judged by other tasks or tests of {a.benchmark}: sha256 {a.benchmark_sha256[:12]} "
            f"and {b.benchmark_sha256[:12]}",
            "judge both with the same data, split and limit",
        )


def _held(side: Side) -> dict[str, Any]:
    """The limits that programs ran under; folders of before that was written tell what was asked for."""
    asked = {name: value for name, value in side.settings.items() if name.startswith("limits.")}
    held = {
        f"limits.{name.removeprefix(IN_FORCE)}": value
        for name, value in side.settings.items()
        if name.startswith(IN_FORCE)
    }
    return held or asked


def _rate(side: Side, task: str) -> Fraction:
    samples = side.scored(task).values()
    return Fraction(sum(sample.passed for sample in samples), len(samples))


def _pairs(task: str, a: Side, b: Side) -> dict[int, tuple[Sampled, Sampled]]:
    """The task's scored samples that both sides have, by number."""
    here, there = a.scored(task), b.scored(task)
    return {number: (here[number], there[number]) for number in sorted(here.keys() & there.keys())}


def _flip(task: str, a: Side, b: Side, *, limits_differ: bool) -> Flip:
    here, there = a.scored(task).values(), b.scored(task).values()
    return Flip(
        task_id=task,
        passed_a=sum(sample.passed for sample in here),
        samples_a=len(here),
        passed_b=sum(sample.passed for sample in there),
        samples_b=len(there),
        changes=tuple(
            Change(number, one.verdict, other.verdict, _where(one, other, limits_differ))
            for number, (one, other) in _pairs(task, a, b).items()
            if one.passed != other.passed
        ),
    )


def _where(one: Sampled, other: Sampled, limits_differ: bool) -> str:
    """The first place where two samples differ; equal programs settle it, whatever they were found in."""
    same = _same_program(one, other)
    if same:
        return LIMITS if limits_differ else EXECUTION
    if same is None:
        return UNKNOWN
    if one.text is None or other.text is None:
        return PROGRAM
    return EXTRACTION if one.text == other.text else GENERATION


def _same_program(one: Sampled, other: Sampled) -> bool | None:
    """None where the two folders do not tell."""
    for mine, theirs in ((one.program, other.program), (one.completion, other.completion)):
        if mine is not None and theirs is not None:
            return mine == theirs
    return None


def _differing(a: Side, b: Side) -> tuple[Setting, ...]:
    """What both sides tell and tell otherwise; limits that held as they were asked for are told once."""
    found = {
        name: (value, b.settings[name])
        for name, value in a.settings.items()
        if name in b.settings and b.settings[name] != value
    }
    return tuple(
        Setting(name, *pair)
        for name, pair in found.items()
        if found.get(name.replace(IN_FORCE, "limits.")) != pair or not name.startswith(IN_FORCE)
    )


def _range(counts: list[int]) -> str:
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
