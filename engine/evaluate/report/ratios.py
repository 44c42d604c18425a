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
        yield Drawn(heading, _chart(measured, heading, field), spreads)


def described(models: Sequence[Entry]) -> Iterator[tuple[Entry, str, dict[str, Any]]]:
    """(model, kind of programs, static facts), where some model's programs were looked at and there are such."""
    for model in models:
        for kind, facts in (model.judged.summary.get("static") or {}).items():
            if kind != "ruff" and facts["programs"]:
                yield model, kind, facts


def _chart(models: Sequence[Entry], heading: str, field: str) -> Markup:
    """The share of programs at or below each ratio, on a scale of at least half to twice the reference."""
    places = [_places(model, field) for model in models]
    found = [place for each in places for place in each]
    if not found:
        return Markup("")
    low, high = min(math.floor(min(found)), -1), max(math.ceil(max(found)), 1)
    curves = [
        Series(model.label, _shares(each, low, high), model.colour)
        for model, each in zip(models, places, strict=True)
        if each
    ]
    every = math.ceil((high - low + 1) / 8)
    marks = [(float(power), f"{2.0**power:g}x") for power in range(low, high + 1) if power % every == 0]
    return line_chart(
        curves,
        label=f"{heading} against the reference",
        across="times the reference",
        percent=True,
        marks=marks,
    )


def _places(model: Entry, field: str) -> list[float]:
    """log2 of each ratio, ascending."""
    ratios = [line[field] for line in model.judged.ratios]
    return sorted(min(max(math.log2(ratio), -WIDEST), WIDEST) for ratio in ratios if ratio is not None)


def _shares(places: Sequence[float], low: int, high: int) -> list[tuple[float, float]]:
    """(log2 of a ratio, share of programs at or below it): a step for each ratio, from no program to all."""
    steps = [(float(low), 0.0)]
    for number, place in enumerate(places):
        steps += [(place, number / len(places)), (place, (number + 1) / len(places))]
    return [*steps, (float(high), 1.0)]
