"""What the report page tells of programs beside verdicts: ratios to their references, and facts of their texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from engine.evaluate.efficiency import Spread
from engine.evaluate.report.charts import Series, line_chart
from engine.evaluate.report.stages import Entry

WIDEST = 6
"""Ratios above 2^6 or below 2^-6 are drawn there."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One quantity of all models."""

    heading: str
    chart: Markup
    spreads: list[tuple[Entry, Spread]]


def drawn(models: Sequence[Entry]) -> Iterator[Drawn]:
    """Run time and memory, where some model was measured."""
    measured = [model for model in models if model.judged.ratios]
    if not measured:
        return
    for heading, field in (("Run time", "cpu_ratio"), ("Peak memory", "memory_ratio")):
        spreads = [
            (model, Spread.of((line["task_id"], line[field]) for line in model.judged.ratios))
            for model in measured
        ]
        curves = [
            Series(model.label, _shares([line[field] for line in model.judged.ratios]), model.colour)
            for model in measured
        ]
        yield Drawn(heading, _chart(curves, heading), spreads)


def described(models: Sequence[Entry]) -> Iterator[tuple[Entry, str, dict[str, Any]]]:
    """(model, kind of programs, static facts), where some model's programs were looked at and there are such."""
    for model in models:
        for kind, facts in (model.judged.summary.get("static") or {}).items():
            if kind != "ruff" and facts["programs"]:
                yield model, kind, facts


def _shares(ratios: Sequence[float | None]) -> list[tuple[float, float]]:
    """(log2 of a ratio, share of programs at or below it): a step for each ratio, from no program to all."""
    places = sorted(min(max(math.log2(ratio), -WIDEST), WIDEST) for ratio in ratios if ratio is not None)
    steps = []
    for number, place in enumerate(places):
        steps += [(place, number / len(places)), (place, (number + 1) / len(places))]
    return steps


def _chart(curves: Sequence[Series], heading: str) -> Markup:
    places = [x for curve in curves for x, _ in curve.points]
    if not places:
        return Markup("")
    low, high = math.floor(min(places)), math.ceil(max(places))
    every = math.ceil((high - low + 1) / 8)
    marks = [(float(power), f"{2.0**power:g}x") for power in range(low, high + 1) if power % every == 0]
    inside = [mark for mark in marks if min(places) <= mark[0] <= max(places)]
    if not inside:  # all between two powers of two
        inside = [(place, f"{2.0**place:.3g}x") for place in sorted({min(places), max(places)})]
    across = "times the reference"
    return line_chart(
        curves, label=f"{heading} against the reference", across=across, percent=True, marks=inside
    )
