"""`temper watch RUN`: the state of a run, redrawn on a terminal; one picture of it elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from engine import protocol
from engine.errors import WishError
from launch import attempts
from launch.attempts import Attempt
from launch.hang import STATES
from launch.records import tail
from launch.verdict import duration

# A mirror that is older was left by a launcher that is gone.
FRESH_SECONDS = 10.0
EVENTS = 5
# What is shown of a rank; launchers tell each other more.
ROW = ("rank", "step", "phase", "silent", "state")
BLOCKS = "▁▂▃▄▅▆▇█"
HOME, TO_END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank as the launcher of its machine saw it a moment ago."""

    host: str
    rank: int
    step: int | None
    phase: str
    silent: float
    state: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything shown, read at one moment."""

    folder: Path
    records: list[dict[str, Any]]
    steps: int | None
    ranks: list[Rank]
    history: list[Attempt]
    number: int

    @property
    def running(self) -> bool:
        """Whether a launcher is at work."""
        return bool(self.ranks)


def look(folder: Path) -> Picture:
    """Read a run folder.

    Raises:
        WishError: it is none.
    """
    if not (folder / protocol.RUN).exists() and not (folder / protocol.LOGS).is_dir():
        raise WishError(
            f"{folder} is not the folder of a run", "give `output` of a run that has been started"
        )
    facts = _json(folder / protocol.FACTS)
    return Picture(
        folder=folder,
        records=tail(folder / protocol.METRICS),
        steps=facts.get("steps"),
        ranks=sorted(_ranks(folder), key=lambda each: each.rank),
        history=attempts.read(folder),
        number=attempts.under_way(folder),
    )


def _ranks(folder: Path) -> Iterator[Rank]:
    for file in (folder / protocol.HEARTBEATS).glob("[!.]*.json"):
        mirror = _json(file)
        if protocol.now() - mirror.get("time", 0.0) < FRESH_SECONDS:
            for row in mirror["ranks"]:
                yield Rank(mirror["host"], **{name: row[name] for name in ROW})


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--every", default=1.0, type=click.FloatRange(0.1, 3600), help="Seconds between two pictures.")
@click.option("--once", is_flag=True, help="One picture, also on a terminal.")
def watch(folder: Path, every: float, once: bool) -> None:
    """Show a run while it goes on: loss, speed, memory, what each rank does, and the last events.

    On a terminal the picture is redrawn until the attempt ends or Ctrl-C; elsewhere one picture is printed.
    """
    picture = look(folder)
    if once or not sys.stdout.isatty() or not picture.running:
        click.echo("\n".join(shown(picture, shutil.get_terminal_size().columns)))
        return
    _redraw(folder, every)
    click.echo("\n".join(shown(look(folder), shutil.get_terminal_size().columns)))


def _redraw(folder: Path, every: float) -> None:
    """Draw until the attempt has ended or somebody has seen enough; the terminal is left as it was."""
    sys.stdout.write(ENTER)
    try:
        while (picture := look(folder)).running:
            size = shutil.get_terminal_size()
            lines = list(shown(picture, size.columns))[: size.lines - 1]
            sys.stdout.write(HOME + "".join(f"{line}{TO_END_OF_LINE}\n" for line in lines) + BELOW)
            sys.stdout.flush()
            time.sleep(every)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


def shown(picture: Picture, width: int) -> Iterator[str]:
    """The picture, no line wider than `width`."""
    for line in _lines(picture, width):
        yield line[:width]


def _lines(picture: Picture, width: int) -> Iterator[str]:
    logged = [record for record in picture.records if "loss" in record]
    last = logged[-1] if logged else {}
    yield from textwrap.wrap(f"{picture.folder}: {_state(picture)}", max(20, width))
    if last:
        of = f"/{picture.steps}" if picture.steps else ""
        yield "  ".join([f"step {last['step']}{of}", *_numbers(last), *_eta(picture, last)])
        losses = [record["loss"] for record in logged if record["loss"] is not None]
        if len(losses) > 1:
            yield f"loss {max(losses[-width:]):.4f} to {min(losses[-width:]):.4f}  {_curve(losses, width - 40)}"
    if picture.ranks:
        yield ""
        hosts = max(4, *(len(each.host) for each in picture.ranks))
        yield f"rank  {'host':<{hosts}}  step      phase      silent"
        for each in picture.ranks:
            step = "-" if each.step is None else str(each.step)
            odd = f"  {STATES[each.state]}" if each.state in "TtD" else ""
            yield f"{each.rank:>4}  {each.host:<{hosts}}  {step:<8}  {each.phase:<9}  {each.silent:.0f} s{odd}"
    events = _events(picture)
    if events:
        yield ""
        yield "last events"
        yield from (f"  {event}" for event in events)


def _state(picture: Picture) -> str:
    if picture.running:
        return f"attempt {picture.number} is under way"
    if not picture.history:
        return "no rank tells where it is (it is starting, or was not started by `temper`)"
    return f"not running; {picture.history[-1].sentence}"


def _numbers(record: dict[str, Any]) -> Iterator[str]:
    if record["loss"] is not None:
        yield f"loss {record['loss']:.4f}"
    if record.get("tokens_per_second"):
        yield f"{record['tokens_per_second']:,.0f} tokens/s"
    if record.get("learning_rate") is not None:
        yield f"lr {record['learning_rate']:.2e}"
    if record.get("memory_mb"):
        yield f"memory {record['memory_mb'] / 1024:.2f} GiB"


def _eta(picture: Picture, last: dict[str, Any]) -> Iterator[str]:
    """Time left, by the steps of the records at hand."""
    steps = [record for record in picture.records if "loss" in record and "time" in record]
    if picture.running and picture.steps and len(steps) > 1 and last["step"] > steps[0]["step"]:
        each = (steps[-1]["time"] - steps[0]["time"]) / (last["step"] - steps[0]["step"])
        yield f"about {duration(each * (picture.steps - last['step']))} left"


def _curve(values: Sequence[float], width: int) -> str:
    """The last `width` values as blocks of eight heights."""
    kept = values[-max(8, width) :]
    low, high = min(kept), max(kept)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in kept)


def _events(picture: Picture) -> list[str]:
    """What happened last: measurements, and ends of attempts."""
    found = [
        (record["time"], _measured(record))
        for record in picture.records
        if "loss" not in record and "time" in record
    ]
    found += [
        (attempt.ended, f"attempt {attempt.number} ended: {attempt.sentence}") for attempt in picture.history
    ]
    found.sort(key=lambda each: each[0])
    return [f"{time.strftime('%H:%M:%S', time.localtime(when))}  {what}" for when, what in found[-EVENTS:]]


def _measured(record: dict[str, Any]) -> str:
    numbers = [
        f"{name} {value:.4g}"
        for name, value in record.items()
        if name not in ("time", "step") and isinstance(value, int | float)
    ]
    head = record.get("event") or (f"step {record['step']}" if "step" in record else "")
    return f"{head}: {', '.join(numbers)}" if numbers else str(head)
