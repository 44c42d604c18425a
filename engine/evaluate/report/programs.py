"""All programs of a report, task by task: what the grid counts, and what the viewer unpacks when it is opened."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.evaluate.report.highlight import visible
from engine.evaluate.report.stages import Entry

KEPT = ("sample", "verdict", "detail", "stderr", "completion", "tokens", "seed", "finish")
MOST_CHARACTERS = 20_000
"""Of one text; a longer one is cut, and says so."""
STEPS = 5
"""Colours of the grid between none passed and all."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One task of one model in the grid."""

    model: int
    step: str
    """Colour: `none` without samples, else 0 (no sample passed) to 5 (all did)."""
    told: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task over all models."""

    number: int
    task_id: str
    cells: list[Cell]
    packed: str
    """Its programs as JSON, compressed, in base64: no character of it means anything to HTML."""


def task_rows(models: Sequence[Entry]) -> list[Row]:
    """One row a task, in the order the evaluations list them."""
    lines = [model.judged.by_task() for model in models]
    counts = [model.judged.counts() for model in models]
    tasks = {name: task for model in models for name, task in model.judged.tasks.items()}
    rows = []
    for number, name in enumerate(dict.fromkeys([*tasks, *(task for part in lines for task in part)])):
        cells = [
            _cell(place, name, model.label, *counts[place].get(name, (0, 0)))
            for place, model in enumerate(models)
        ]
        task = tasks.get(name, {})
        packed = _pack(
            {
                "prompt": _text(task.get("prompt", "")),
                "reference": _text(task.get("reference", "")),
                "language": task.get("language", "python"),
                "runs": [[_kept(line) for line in part.get(name, [])] for part in lines],
            }
        )
        rows.append(Row(number, name, cells, packed))
    return rows


def _cell(place: int, task: str, label: str, samples: int, passed: int) -> Cell:
    if not samples:
        return Cell(place, "none", f"{task}, {label}: no scored sample")
    inner = 1 + min(int((STEPS - 1) * passed / samples), STEPS - 2)
    step = 0 if not passed else STEPS if passed == samples else inner
    return Cell(place, str(step), f"{task}, {label}: {passed} of {samples} passed")


def _kept(line: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _text(line[name]) if isinstance(line[name], str) else line[name]
        for name in KEPT
        if line.get(name) not in (None, "") or (name == "completion" and name in line)
    }


def _text(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return visible(text[:MOST_CHARACTERS]) + (f"\n… {more:,} more characters" if more > 0 else "")


def _pack(value: Any) -> str:
    return base64.b64encode(
        zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 6)
    ).decode()
