"""Line charts as inline SVG: no script, no font, no network; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
MOST_POINTS = 300
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points by ascending x, a colour number of the style sheet, and perhaps an interval around it."""

    name: str
    points: Sequence[Point]
    colour: int
    dashed: bool = False
    markers: bool = False
    smooth: bool = False
    """Draw a running mean over the faded line: single steps of a training loss are noisy."""
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The two scales of a chart."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Across, in SVG units."""
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Down, in SVG units."""
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    across: str = "step",
    percent: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """A chart of some lines over one axis; empty where there is nothing to draw.

    Args:
        label: what the chart shows, read out by screen readers.
        across: name of the x axis.
        percent: the values are shares, drawn from 0 to 100 %.
        marks: (x, text) below the x axis, in place of round numbers.
    """
    lines = [line for line in series if line.points]
    if not lines:
        return Markup("")
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    y_ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if percent else ticks(min(ys), max(ys), 5)
    x_high = max(xs) if max(xs) > min(xs) else min(xs) + 1
    frame = Frame(min(xs), x_high, y_ticks[0], y_ticks[-1])
    parts = [_grid(frame, y_ticks, percent), _across(frame, across, marks)]
    parts += [_line(frame, line, percent, across, dict(marks)) for line in lines]
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{label}" class="chart">{body}</svg>'
    ).format(w=WIDTH, h=HEIGHT, label=label, body=Markup("").join(parts))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers whose first and last enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _grid(frame: Frame, y_ticks: Sequence[float], percent: bool) -> Markup:
    parts = []
    for value in y_ticks:
        text = f"{value:.0%}" if percent else f"{value:g}"
        parts.append(
            Markup(
                '<line class="grid" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'
                '<text class="tick" x="{tx}" y="{ty}" text-anchor="end">{text}</text>'
            ).format(
                x1=LEFT, x2=WIDTH - RIGHT, y=frame.y(value), tx=LEFT - 8, ty=frame.y(value) + 4, text=text
            )
        )
    return Markup("").join(parts)


def _across(frame: Frame, name: str, marks: Sequence[tuple[float, str]]) -> Markup:
    values = [value for value in ticks(frame.x_low, frame.x_high, 5) if frame.x_low <= value <= frame.x_high]
    shown = marks or [(value, f"{value:g}") for value in values]
    texts = [
        Markup('<text class="tick" x="{x}" y="{y}" text-anchor="middle">{text}</text>').format(
            x=frame.x(value), y=HEIGHT - BOTTOM + 18, text=text
        )
        for value, text in shown
    ]
    title = Markup('<text class="axis" x="{x}" y="{y}" text-anchor="middle">{text}</text>').format(
        x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text=name
    )
    return Markup("").join([*texts, title])


def _line(frame: Frame, line: Series, percent: bool, across: str, marks: Mapping[float, str]) -> Markup:
    points = thin(line.points)
    parts = []
    if line.band:
        edge = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
        parts.append(
            Markup('<polygon class="band c{c}" points="{p}"/>').format(c=line.colour, p=_path(frame, edge))
        )
    style = f"line c{line.colour}" + (" dashed" if line.dashed else "")
    smooth = line.smooth and len(points) > 20
    if smooth:
        parts.append(
            Markup('<polyline class="{s} faded" points="{p}"/>').format(s=style, p=_path(frame, points))
        )
    drawn = running_mean(points) if smooth else points
    parts.append(Markup('<polyline class="{s}" points="{p}"/>').format(s=style, p=_path(frame, drawn)))
    if line.markers:
        for x, y in points:
            value = f"{y:.1%}" if percent else f"{y:.4g}"
            parts.append(
                Markup(
                    '<circle class="dot c{c}" cx="{x}" cy="{y}" r="3.5"><title>{t}</title></circle>'
                ).format(
                    c=line.colour,
                    x=frame.x(x),
                    y=frame.y(y),
                    t=f"{line.name}, {across} {marks.get(x, f'{x:g}')}: {value}",
                )
            )
    return Markup("").join(parts)


def _path(frame: Frame, points: Sequence[Point]) -> str:
    return str(escape(" ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in points)))


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its neighbours: a page must not grow with the run."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def running_mean(points: Sequence[Point], keep: float = 0.8) -> list[Point]:
    """Exponential mean, corrected for its start, so that the first points are not pulled to zero."""
    mean = weight = 0.0
    smooth = []
    for x, y in points:
        mean = keep * mean + (1 - keep) * y
        weight = keep * weight + (1 - keep)
        smooth.append((x, mean / weight))
    return smooth
