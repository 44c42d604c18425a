"""A comparison for people: as plain text for a terminal, and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.evaluate.compare.comparison import WHERE, Comparison, Flip
from engine.evaluate.compare.paired import Paired
from engine.evaluate.report.highlight import visible
from engine.evaluate.report.markdown import plain, table

MOST_FLIPS = 40
"""Shown, largest difference first; JSON has all in the order of the tasks."""
MOST_CHARACTERS = 60
"""Of a setting's value on a terminal."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows under a head."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def as_text(found: Comparison) -> str:
    """Lines and aligned columns; nothing that a folder holds can move a terminal's cursor."""
    parts = [_aligned(part) if isinstance(part, Grid) else visible(part) for part in _parts(found)]
    return "\n\n".join(parts)


def as_markdown(found: Comparison) -> str:
    """The same for a pull request."""
    parts = [
        table(part.head, [tuple(map(visible, row)) for row in part.rows])
        if isinstance(part, Grid)
        else plain(visible(part))
        for part in _parts(found)
    ]
    return "\n\n".join(parts)


def _parts(found: Comparison) -> Iterator[str | Grid]:
    result = found.result
    yield f"A is {found.a.folder}, B is {found.b.folder}."
    of = found.a.benchmark or found.b.benchmark or "an unnamed benchmark"
    yield (
        f"{of}, {result.tasks:,} shared tasks: pass@1 {result.a:.2%} in A, {result.b:.2%} in B. Difference "
        f"{_points(result.difference)} points, 95 % interval {_points(result.low)} to {_points(result.high)}."
    )
    yield conclusion(result)
    if found.flips:
        places = ", ".join(f"{name} {count:,}" for name, count in found.where.items())
        yield f"{len(found.flips):,} tasks changed: {result.gained:,} gained, {result.lost:,} lost. Where: {places}."
        largest = sorted(found.flips, key=lambda flip: -abs(flip.difference))[:MOST_FLIPS]
        yield Grid(("task", "A", "B", "where", "verdicts"), [_row(flip) for flip in largest])
        if len(found.flips) > MOST_FLIPS:
            yield f"{len(found.flips) - MOST_FLIPS:,} more tasks changed: --json names them all."
        yield "; ".join(f"{name}: {WHERE[name]}" for name in found.where) + "."
    yield f"{found.same_programs:,} of {found.joined:,} samples are the same program on both sides."
    if found.settings:
        rows = [(one.name, _short(one.a), _short(one.b)) for one in found.settings]
        yield Grid(("setting that differs", "A", "B"), rows)
    else:
        yield "No setting that both sides tell differs."


def conclusion(result: Paired) -> str:
    """One sentence with the test and its p-value."""
    tested = f"{result.test}, p {_p_value(result)}"
    if not result.differs:
        return (
            f"No evidence of a difference ({tested}; {result.gained:,} gained, {result.lost:,} lost): "
            "the interval is what these tasks leave open."
        )
    better = "B" if result.difference > 0 else "A"
    return f"Evidence of a difference: {better} passes more ({tested}; {result.gained:,} gained, {result.lost:,} lost)."


def _p_value(result: Paired) -> str:
    if result.p_value < 1e-4:
        return "< 0.0001" if result.exact else "about 0.0001 or less"
    return f"{'=' if result.exact else 'about'} {result.p_value:.3g}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def _row(flip: Flip) -> tuple[str, ...]:
    seen = Counter(f"{change.a} to {change.b}" for change in flip.changes)
    return (
        flip.task_id,
        f"{flip.passed_a}/{flip.samples_a}",
        f"{flip.passed_b}/{flip.samples_b}",
        ", ".join(flip.where),
        ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in seen.items()),
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _aligned(grid: Grid) -> str:
    rows: Sequence[Sequence[str]] = [[visible(" ".join(cell.split())) for cell in row] for row in grid.rows]
    rows = [grid.head, *rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(grid.head))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
