"""A loss over learning rates on a logarithmic axis, drawn for a terminal and as an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

COLUMNS, LINES = 64, 14
WIDTH, HEIGHT, EDGE = 720, 400, 56


def text(rates: Sequence[float], losses: Sequence[float]) -> str:
    """A line of dots, COLUMNS wide and LINES high; left and right stand the axes' ends."""
    low, high = min(losses), max(losses)
    cells = [[" "] * COLUMNS for _ in range(LINES)]
    for rate, loss in zip(rates, losses, strict=True):
        column = round(_share(math.log10(rate), math.log10(rates[0]), math.log10(rates[-1])) * (COLUMNS - 1))
        line = round((1 - _share(loss, low, high)) * (LINES - 1))
        cells[line][column] = "•"
    names = [f"{high:.3g}", *[""] * (LINES - 2), f"{low:.3g}"]
    drawn = [f"{name:>8} │{''.join(line)}" for name, line in zip(names, cells, strict=True)]
    ends = f"{rates[0]:.1e}".ljust(COLUMNS - 8) + f"{rates[-1]:.1e}"
    return "\n".join([*drawn, " " * 9 + "└" + "─" * COLUMNS, " " * 10 + ends])


def picture(
    rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], *, mark: float | None
) -> str:
    """The same as an SVG that asks nothing of a network: dots, their smoothed line, and a marked rate."""
    left, right = math.log10(rates[0]), math.log10(rates[-1])
    # Beyond what the smoothed line reaches, single steps would flatten everything else.
    low, high = min(*losses, *smooth), max(*smooth, losses[0])

    def x(rate: float) -> float:
        return EDGE + _share(math.log10(rate), left, right) * (WIDTH - 2 * EDGE)

    def y(loss: float) -> float:
        return EDGE + (1 - min(1.0, _share(loss, low, high))) * (HEIGHT - 2 * EDGE)

    decades = [10.0**power for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1)]
    levels = [low + part * (high - low) / 4 for part in range(5)]
    grid = [f'<path d="M{x(d):.1f} {EDGE}V{HEIGHT - EDGE}"/>' for d in decades]
    grid += [f'<path d="M{EDGE} {y(level):.1f}H{WIDTH - EDGE}"/>' for level in levels]
    names = [
        f'<text x="{x(d):.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{d:.0e}</text>' for d in decades
    ]
    names += [f'<text x="{EDGE - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.3g}</text>' for v in levels]
    dots = [f'<circle cx="{x(r):.1f}" cy="{y(v):.1f}" r="2"/>' for r, v in zip(rates, losses, strict=True)]
    line = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in zip(rates, smooth, strict=True))
    marked = []
    if mark is not None:
        marked = [
            f'<path d="M{x(mark):.1f} {EDGE}V{HEIGHT - EDGE}" stroke="#c2410c" stroke-dasharray="4 3"/>',
            f'<text x="{x(mark) + 6:.1f}" y="{EDGE + 12}" fill="#c2410c">falls fastest: {mark:.2g}</text>',
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<g stroke="#e5e7eb">{"".join(grid)}</g><g fill="#374151">{"".join(names)}</g>',
            f'<g fill="#94a3b8">{"".join(dots)}</g>',
            f'<polyline points="{line}" fill="none" stroke="#1d4ed8" stroke-width="2"/>',
            *marked,
            f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">learning rate</text>',
            f'<text x="{EDGE}" y="{EDGE - 16}">training loss: each step, and smoothed</text>',
            "</svg>\n",
        ]
    )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
