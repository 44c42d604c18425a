"""From verdicts to figures: pass@k and pass^k with intervals, by group, and what went wrong how often."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import PreflightError
from engine.evaluate.benchmarks import fingerprint
from engine.evaluate.beyond import Beyond
from engine.evaluate.judge import in_force
from engine.evaluate.libraries import Missing, counted, told
from engine.evaluate.majority import Vote, majority
from engine.evaluate.origin import Origin
from engine.evaluate.passk import Estimate, estimate, pass_hat_k
from engine.evaluate.task import Task
from engine.sandbox import VERDICTS, Limits

NAMED = 5
"""How many of a long list an error or a note names."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The verdict on one sample."""

    task_id: str
    sample: int
    verdict: str
    answer: str | None = None
    """Which program it was, as `majority.answer` names it; None where nobody votes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """pass@k and pass^k of a set of tasks."""

    tasks: int
    samples: int
    passed: int
    pass_at_k: dict[int, Estimate]
    pass_hat_k: dict[int, Estimate]
    """For k above 1: pass^1 is pass@1."""

    def as_json(self) -> dict[str, Any]:
        """As it stands in summary.json: k is a text there, since JSON's keys are."""
        return {
            "tasks": self.tasks,
            "samples": self.samples,
            "passed": self.passed,
            "pass_at_k": {str(k): value.as_json() for k, value in self.pass_at_k.items()},
            "pass_hat_k": {str(k): value.as_json() for k, value in self.pass_hat_k.items()},
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What verdicts on samples of a benchmark come to, whoever drew the samples."""

    benchmark: str
    benchmark_sha256: str
    figures: Figures
    groups: dict[str, Figures]
    verdicts: dict[str, int]
    isolation: str
    """The sandbox level, or the levels, that all verdicts were given at."""
    limits: Mapping[str, Any]
    """What held of each limit asked for, raised where the tasks need more: [least, most] where they differ in it."""
    not_judged: Missing = field(default_factory=dict)
    """Tasks left out, by id, and the libraries each lacks; they are in no figure and not in the hash."""
    majority: Estimate | None = None
    """Share of tasks whose most common answer passes; None where no task has samples enough for a vote."""

    @classmethod
    def of(
        cls,
        benchmark: str,
        tasks: Sequence[Task],
        scored: Sequence[Scored],
        ks: Sequence[int],
        *,
        counted: Sequence[Task] | None = None,
        isolation: Iterable[str],
        asked: Limits,
        not_judged: Missing | None = None,
    ) -> Found:
        """Count.

        Args:
            benchmark: its name.
            tasks: all that it has.
            scored: the verdicts.
            ks: of pass@k.
            counted: the tasks that are in the figures; None: all.
            isolation: of each verdict.
            asked: the limits, before any task raised them.
            not_judged: further tasks, for which libraries are missing.
        """
        counts = tally(scored)
        counted = tasks if counted is None else counted
        return cls(
            benchmark=benchmark,
            benchmark_sha256=fingerprint(tasks),
            figures=figures(counted, counts, ks),
            groups=by_group(counted, counts, ks),
            verdicts=taxonomy(scored),
            isolation=" and ".join(sorted(set(isolation))),
            limits=held(asked, counted),
            not_judged=not_judged or {},
            majority=majority(ballots(counted, scored)),
        )

    @property
    def unscored(self) -> int:
        """Samples the sandbox failed on: in no figure, and a reason to run again."""
        return self.verdicts.get("infra", 0)

    def as_json(self) -> dict[str, Any]:
        """This part of summary.json, of whatever wrote it."""
        return {
            "benchmark": self.benchmark,
            "benchmark_sha256": self.benchmark_sha256,
            **self.figures.as_json(),
            **({"majority": self.majority.as_json()} if self.majority else {}),
            "groups": {name: figures.as_json() for name, figures in self.groups.items()},
            "verdicts": self.verdicts,
            "unscored": self.unscored,
            "isolation": self.isolation,
            "limits": self.limits,
            "not_judged": {"tasks": len(self.not_judged), "libraries": counted(self.not_judged)},
        }

    def lines(self) -> list[str]:
        """pass@k and pass^k of all tasks, pass@k of each group, and the verdicts, for a person to read."""
        whole = self.figures
        lines = [f"{self.benchmark}: {whole.samples:,} samples of {whole.tasks:,} tasks"]
        named = [(f"pass@{k}", value) for k, value in whole.pass_at_k.items()]
        named += [(f"pass^{k}", value) for k, value in whole.pass_hat_k.items() if value.value is not None]
        for name, value in named:
            if value.value is None or value.low is None or value.high is None:
                lines.append(f"  {name:<9} undefined")
            else:
                interval = f"95 % interval {value.low:.2%} to {value.high:.2%}"
                lines.append(f"  {name:<9} {value.value:7.2%}   {interval}")
        for group, part in self.groups.items():
            shown = "  ".join(
                f"pass@{k} {v.value:.2%}" for k, v in part.pass_at_k.items() if v.value is not None
            )
            lines.append(f"  {group}: {part.tasks} tasks  {shown}")
        counts = (f"{name} {count:,}" for name, count in self.verdicts.items())
        return [*lines, "  verdicts  " + "  ".join(counts)]

    def left_out(self) -> list[str]:
        """A sentence on the tasks that are not judged; none where all are."""
        return [f"  note: {told(self.not_judged)}"] if self.not_judged else []

    def require_verdicts(self) -> None:
        """Raise PreflightError while the sandbox itself failed on samples: the figures lack them."""
        if self.unscored:
            raise PreflightError(
                f"the sandbox failed on {self.unscored} of {self.figures.samples + self.unscored} samples, "
                "which are in no figure",
                "run again; `temper sandbox probe` shows what this machine grants",
            )


@dataclass(frozen=True, slots=True)
class Summary:
    """What an evaluation found."""

    found: Found
    truncated: int
    """Answers that ended at the length limit."""
    seconds: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    extract_version: int | None = None
    origin: Origin | None = None
    only_thinking: int = 0
    """Answers that are thinking without an end, mostly since the length limit cut them: empty programs."""
    beyond: Beyond = Beyond()

    def as_json(self) -> dict[str, Any]:
        """The whole of summary.json."""
        return {
            **self.found.as_json(),
            "data": self.origin.as_json() if self.origin else None,
            "truncated": self.truncated,
            "only_thinking": self.only_thinking,
            "seconds": self.seconds,
            "settings": self.settings,
            "extract_version": self.extract_version,
            **self.beyond.as_json(),
        }

    def table(self) -> str:
        """The figures for a person to read."""
        thinking = f", thinking without an end {self.only_thinking:,}" if self.only_thinking else ""
        tail = [f"  answers cut by length {self.truncated:,}{thinking}, isolation {self.found.isolation}"]
        if self.origin and self.origin.note:
            tail.append(f"  note: {self.origin.note}")
        return "\n".join([*self.found.lines(), *tail, *self.beyond.lines(), *self.found.left_out()])

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a training log: `pass@1`, `low/pass@1`, `high/pass@1`, and main groups' `pass@1/NAME`."""
        flat: dict[str, float] = {}
        for k, value in self.found.figures.pass_at_k.items():
            for name, number in (("", value.value), ("low/", value.low), ("high/", value.high)):
                if number is not None:
                    flat[f"{name}pass@{k}"] = number
        for group, part in self.found.groups.items():
            for k, value in part.pass_at_k.items():
                if value.value is not None and "/" not in group:
                    flat[f"pass@{k}/{group}"] = value.value
        return flat


def figures(tasks: Sequence[Task], scored: Mapping[str, tuple[int, int]], ks: Sequence[int]) -> Figures:
    """pass@k over tasks, given (samples, passed) of each; a task without samples has none."""
    counts = [scored.get(task.id, (0, 0)) for task in tasks]
    return Figures(
        tasks=len(tasks),
        samples=sum(n for n, _ in counts),
        passed=sum(c for _, c in counts),
        pass_at_k={k: estimate(counts, k) for k in ks},
        pass_hat_k={k: estimate(counts, k, of_task=pass_hat_k) for k in ks if k > 1},
    )


def by_group(
    tasks: Sequence[Task], scored: Mapping[str, tuple[int, int]], ks: Sequence[int]
) -> dict[str, Figures]:
    """Figures of each group, and of groups of groups: `compositions/level2` counts for `compositions` too."""
    members: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        parts = task.group.split("/") if task.group else []
        for depth in range(1, len(parts) + 1):
            members["/".join(parts[:depth])].append(task)
    return {name: figures(members[name], scored, ks) for name in sorted(members)}


def held(asked: Limits, tasks: Sequence[Task]) -> dict[str, Any]:
    """The limits that programs ran under, by name: a number, or [least, most] where tasks differ in it."""
    ranges: dict[str, Any] = {}
    for limits in {in_force(asked, task): None for task in tasks} or [asked]:
        for name, value in asdict(limits).items():
            least, most = ranges.get(name, (value, value))
            ranges[name] = (min(least, value), max(most, value))
    return {name: least if least == most else [least, most] for name, (least, most) in ranges.items()}


def tally(scored: Iterable[Scored]) -> dict[str, tuple[int, int]]:
    """(samples, passed) of each task. `infra` is the sandbox's failure: such samples do not count."""
    counts: dict[str, tuple[int, int]] = {}
    for item in scored:
        if item.verdict != "infra":
            n, c = counts.get(item.task_id, (0, 0))
            counts[item.task_id] = (n + 1, c + (item.verdict == "passed"))
    return counts


def ballots(tasks: Sequence[Task], scored: Iterable[Scored]) -> list[list[Vote]]:
    """The votes on each task, in the order of its samples."""
    votes: dict[str, list[Vote]] = defaultdict(list)
    for item in sorted(scored, key=lambda item: item.sample):
        if item.verdict != "infra" and item.answer is not None:
            votes[item.task_id].append(Vote(item.answer, item.verdict == "passed"))
    return [votes[task.id] for task in tasks]


def taxonomy(scored: Iterable[Scored]) -> dict[str, int]:
    """How often each verdict was given, in the order they are listed everywhere; `passed` even if never."""
    counts = Counter(item.verdict for item in scored)
    return {name: counts[name] for name in VERDICTS if counts[name] or name == "passed"}


def some(names: Sequence[str]) -> str:
    """The first few of a long list, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
