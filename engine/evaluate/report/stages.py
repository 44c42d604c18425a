"""Run folders read back: what was trained, how it went, and what its programs came to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from engine import protocol
from engine.errors import WishError
from engine.evaluate import damage, journal
from engine.evaluate.report.charts import Point
from engine.evaluate.report.judged import BASE, Judged, is_evaluation, read_judged, read_object
from engine.evaluate.results import SUMMARY

COLOURS = 6
"""Colours of the style sheet; a seventh model has the first one's again."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One run folder."""

    folder: Path
    name: str
    """Short, and no other run of the report has it."""
    run: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)

    def series(self, metric: str) -> list[Point]:
        """(step, value) of a logged metric; a step logged twice keeps its last value."""
        points = {
            record["step"]: float(record[metric])
            for record in self.metrics
            if isinstance(record.get("step"), int) and isinstance(record.get(metric), int | float)
        }
        return sorted(points.items())

    def band(self, metric: str) -> list[tuple[float, float, float]]:
        """(step, low, high) where a metric was logged with its interval."""
        low, high = dict(self.series(f"low/{metric}")), dict(self.series(f"high/{metric}"))
        return [(step, low[step], high[step]) for step in sorted(low.keys() & high.keys())]

    def pass_metrics(self) -> list[str]:
        """Names of the overall pass@k logged in the loop, by k."""
        names = {name for record in self.metrics for name in record if re.fullmatch(r"pass@\d+", name)}
        return sorted(names, key=lambda name: int(name[5:]))

    @property
    def training_seconds(self) -> float | None:
        """Wall time of training, where the run left word of it."""
        # The outcome is the last attempt's; what is logged adds up over all of them, start-up left out.
        logged = (self.series("seconds") or [(0, 0.0)])[-1][1]
        seconds = max(self.outcome.get("seconds") or 0.0, logged)
        return round(seconds, 1) if seconds else None


def gather(folders: Sequence[Path]) -> list[Stage]:
    """Read run folders, evaluation folders, and what `temper score --out` wrote.

    Raises:
        WishError: there is nothing of a run in one, or one of its files is damaged.
    """
    paths = [folder.resolve() for folder in folders]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    names = ["/".join(path.parts[-depth:]) for path in paths]
    return [_gather(*pair) for pair in zip(folders, names, strict=True)]


def _gather(folder: Path, name: str) -> Stage:
    """Read a run folder, or an evaluation with what its run tells of it.

    Raises:
        WishError: there is nothing of a run in it, or one of its files is damaged.
    """
    alone = is_evaluation(folder)
    home = _home(folder) if alone else folder
    with damage.told(str(folder), "run its last step again"):
        stage = Stage(
            folder=folder,
            name=name,
            run=_yaml(home / protocol.RUN),
            facts=read_object(home / protocol.FACTS),
            metrics=list(journal.read(home / protocol.METRICS)),
            outcome=read_object(home / protocol.OUTCOME),
            judged=[
                read_judged(place)
                for place in ([folder] if alone else _evaluations(folder / protocol.EVALUATIONS))
            ],
        )
    if not (stage.metrics or stage.judged):
        raise WishError(
            f"{folder} holds neither {protocol.METRICS} nor a finished evaluation",
            "name a run folder, after `temper train` or `temper evaluate`, or what `temper score --out` wrote",
        )
    return stage


def _evaluations(folder: Path) -> list[Path]:
    """Finished evaluations besides those of the loop: first of the starting point, then by name."""
    found = [path.parent for path in folder.glob(f"*/{SUMMARY}")]
    return sorted(found, key=lambda path: (not path.name.endswith(BASE), path.name))


def _home(evaluation: Path) -> Path:
    """The run folder an evaluation belongs to, or else the evaluation itself."""
    return evaluation.parent.parent if evaluation.parent.name == protocol.EVALUATIONS else evaluation


def _yaml(path: Path) -> dict[str, Any]:
    value = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One judged model of the report: a column wherever models are compared."""

    label: str
    colour: int
    stage: Stage
    judged: Judged

    @property
    def trained(self) -> bool:
        """Whether the run's training made this model."""
        return not self.judged.of_start and bool(self.stage.facts)

    def figures(self, group: str = "") -> dict[str, Any]:
        """Figures of a group, or of all tasks; empty where there are none."""
        summary = self.judged.summary
        return summary.get("groups", {}).get(group, {}) if group else summary

    def pass_at(self, k: str, group: str = "") -> dict[str, Any]:
        """value, low, high of pass@k; empty where it is undefined."""
        return self._estimate("pass_at_k", k, group)

    def pass_hat(self, k: str) -> dict[str, Any]:
        """value, low, high of pass^k over all tasks; empty where it is undefined."""
        return self._estimate("pass_hat_k", k, "")

    def _estimate(self, kind: str, k: str, group: str) -> dict[str, Any]:
        estimate = self.figures(group).get(kind, {}).get(k) or {}
        return estimate if estimate.get("value") is not None else {}


def asked_ks(models: Sequence[Entry]) -> list[str]:
    """The k of pass@k that any model was asked for."""
    return sorted({k for model in models for k in model.judged.summary["pass_at_k"]}, key=int)


def hat_ks(models: Sequence[Entry]) -> list[str]:
    """The k that any model has a pass^k for; folders of before it was counted have none."""
    return sorted(
        {k for model in models for k in model.judged.summary.get("pass_hat_k", {}) if model.pass_hat(k)},
        key=int,
    )


def entries(stages: Sequence[Stage]) -> list[Entry]:
    """The models to compare, in the order of the runs; one start that several runs share is shown once."""
    found: list[Entry] = []
    starts: set[tuple[Any, ...]] = set()
    for stage in stages:
        several = len({judged.summary.get("benchmark") for judged in stage.judged}) > 1
        for judged in stage.judged:
            trained = bool(stage.facts) or any(stage.series("loss"))
            label = "base" if judged.of_start and trained else stage.name
            if judged.of_start:
                settings = judged.summary.get("settings", {})
                start = (settings.get("model"), judged.summary.get("benchmark_sha256"))
                if start in starts:
                    continue
                starts.add(start)
            if several:
                label += f" · {judged.summary.get('benchmark')}"
            found.append(Entry(label, len(found) % COLOURS, stage, judged))
    return found
