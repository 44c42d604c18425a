"""From verdicts to figures: pass@k with intervals, by group, and what went wrong how often."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import PreflightError
from engine.evaluate.passk import Estimate, estimate
from engine.evaluate.task import Task
from engine.sandbox import VERDICTS


@dataclass(frozen=True, slots=True)
class Scored:
    """The verdict on one sample."""

    task_id: str
    sample: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Figures:
    """pass@k of a set of tasks."""

    tasks: int
    samples: int
    passed: int
    pass_at_k: dict[int, Estimate]

    def as_json(self) -> dict[str, Any]:
        """As it stands in summary.json: k is a text there, since JSON's keys are."""
        return {
            "tasks": self.tasks,
            "samples": self.samples,
            "passed": self.passed,
            "pass_at_k": {str(k): value.as_json() for k, value in self.pass_at_k.items()},
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What an evaluation found."""

    benchmark: str
    benchmark_sha256: str
    figures: Figures
    groups: dict[str, Figures]
    verdicts: dict[str, int]
    unscored: int
    """Samples the sandbox failed on: in no figure, and a reason to run again."""
    truncated: int
    """Answers that ended at the length limit."""
    seconds: dict[str, float]
    isolation: str
    settings: dict[str, Any] = field(default_factory=dict)
    extract_version: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The whole of summary.json."""
        return {
            "benchmark": self.benchmark,
            "benchmark_sha256": self.benchmark_sha256,
            **self.figures.as_json(),
            "groups": {name: figures.as_json() for name, figures in self.groups.items()},
            "verdicts": self.verdicts,
            "unscored": self.unscored,
            "truncated": self.truncated,
            "seconds": self.seconds,
            "isolation": self.isolation,
            "settings": self.settings,
            "extract_version": self.extract_version,
        }

    def table(self) -> str:
        """The figures for a person to read."""
        head = f"{self.benchmark}: {self.figures.samples:,} samples of {self.figures.tasks:,} tasks"
        tail = f"  answers cut by length {self.truncated:,}, isolation {self.isolation}"
        return "\n".join([head, *as_lines(self.figures, self.groups, self.verdicts), tail])

    def require_verdicts(self) -> None:
        """Raise PreflightError while the sandbox itself failed on samples: the figures lack them."""
        if self.unscored:
            raise PreflightError(
                f"the sandbox failed on {self.unscored} samples, which are in no figure",
                "run again to retry only these; `temper sandbox probe` shows what this machine grants",
            )

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a training log: `pass@1`, `low/pass@1`, `high/pass@1`, and main groups' `pass@1/NAME`."""
        flat: dict[str, float] = {}
        for k, value in self.figures.pass_at_k.items():
            for name, number in (("", value.value), ("low/", value.low), ("high/", value.high)):
                if number is not None:
                    flat[f"{name}pass@{k}"] = number
        for group, part in self.groups.items():
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


def tally(scored: Iterable[Scored]) -> dict[str, tuple[int, int]]:
    """(samples, passed) of each task. `infra` is the sandbox's failure: such samples do not count."""
    counts: dict[str, tuple[int, int]] = {}
    for item in scored:
        if item.verdict != "infra":
            n, c = counts.get(item.task_id, (0, 0))
            counts[item.task_id] = (n + 1, c + (item.verdict == "passed"))
    return counts


def taxonomy(scored: Iterable[Scored]) -> dict[str, int]:
    """How often each verdict was given, in the order they are listed everywhere; `passed` even if never."""
    counts = Counter(item.verdict for item in scored)
    return {name: counts[name] for name in VERDICTS if counts[name] or name == "passed"}


def as_lines(found: Figures, groups: Mapping[str, Figures], verdicts: Mapping[str, int]) -> list[str]:
    """The same figures for a person to read."""
    lines = []
    for k, value in found.pass_at_k.items():
        if value.value is None or value.low is None or value.high is None:
            lines.append(f"  pass@{k:<4} undefined")
        else:
            interval = f"95 % interval {value.low:.2%} to {value.high:.2%}"
            lines.append(f"  pass@{k:<4} {value.value:7.2%}   {interval}")
    for group, part in groups.items():
        shown = "  ".join(f"pass@{k} {v.value:.2%}" for k, v in part.pass_at_k.items() if v.value is not None)
        lines.append(f"  {group}: {part.tasks} tasks  {shown}")
    lines.append("  verdicts  " + "  ".join(f"{name} {count:,}" for name, count in verdicts.items()))
    return lines
