"""What a search has found: as a table, as JSON, and as a run file that trains as its best trial did."""

from __future__ import annotations

import json
import math
from typing import Any

from engine import protocol
from engine.config import dump, load
from launch.space import snippet
from launch.study import Row, Search

RESULT = "tune.json"
BEST = "best.yaml"


def write(search: Search, run_file: str, overrides: tuple[str, ...]) -> None:
    """Write the result so far: as JSON, and as a run file that trains as the best trial did."""
    protocol.write_json(search.folder / RESULT, as_data(search))
    best = search.best()
    if best is not None:
        text = dump(load(run_file, (*overrides, *best.words)).run)
        head = f"# {run_file} with the values of trial {best.number} of {search.folder}\n"
        partial = search.folder / f".{BEST}.{best.number}.partial"
        partial.write_text(head + text, encoding="utf-8")
        partial.replace(search.folder / BEST)


def as_data(search: Search) -> dict[str, Any]:
    """All that the search has found, as JSON has it."""
    best, wish = search.best(), search.wish
    return {
        "metric": wish.metric,
        "mode": "min" if wish.minimize else "max",
        "take": wish.take,
        "best": best and _as_json(best) | {"yaml": snippet(best.words)},
        "importance": search.importance(),
        "trials": [_as_json(row) for row in search.rows()],
    }


def show(search: Search, *, json_wanted: bool) -> None:
    """Print all trials, the best first, and what of the best is worth keeping."""
    if json_wanted:
        print(json.dumps(as_data(search), indent=1))
        return
    wish, rows, best = search.wish, search.rows(), search.best()
    order = {"done": 0, "pruned": 1, "running": 2, "refused": 3, "failed": 4}
    sign = 1 if wish.minimize else -1
    worst = math.inf
    rows.sort(
        key=lambda row: (order[row.state], worst if row.value is None else sign * row.value, row.number)
    )
    print(f"\n{'trial':>5}  {'state':<8} {wish.metric:>16}  {'step':>6}  values")
    for row in rows:
        mark = "*" if best is not None and row.number == best.number else " "
        step = "" if row.step is None else row.step
        print(f"{row.number:>5}{mark} {row.state:<8} {number(row.value):>16}  {step:>6}  {short(row.words)}")
    shares = search.importance()
    if shares:
        print("\nimportance: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    if best is None:
        print("\nno trial has come to its end")
        return
    print(
        f"\nbest: trial {best.number}, {wish.metric} {number(best.value)}; `temper train {search.folder / BEST}`"
    )
    print(snippet(best.words), end="")


def number(value: float | None) -> str:
    """A measurement as a table has room for; nothing for none."""
    return "" if value is None else f"{value:.5g}"


def short(words: tuple[str, ...]) -> str:
    """Values as a line has room for: the last part of each key, four digits of each number."""
    parts = []
    for word in words:
        key, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            parts.append(f"{key.rpartition('.')[2]} {value}")
        else:
            parts.append(f"{key.rpartition('.')[2]} {number:.4g}")
    return ", ".join(parts)


def _as_json(row: Row) -> dict[str, Any]:
    values = {key: json.loads(word) for key, _, word in (one.partition("=") for one in row.words)}
    return {
        "number": row.number,
        "state": row.state,
        "value": row.value,
        "step": row.step,
        "values": values,
        "reason": row.reason,
        "seconds": row.seconds,
    }
