"""`temper lr`: the learning-rate range test (arXiv 1506.01186): one short training whose rate rises until it breaks."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from engine import errors, protocol
from engine.config import demand, load
from engine.errors import TemperError, WishError
from launch import curve, trial
from launch.command import plan
from launch.verbs import read

FOLDER = "lr"
RESULT, PICTURE = "lr.json", "lr.svg"
# Far above its best the loss will not come back, and each further step costs as much as a good one.
DIVERGED = 4.0
SMOOTHING = 0.9
FEWEST = 10
STILL = (
    "train.schedule=range",
    "train.warmup_steps=0",
    "train.warmup_fraction=0",
    "train.log_every=1",
    "train.validate_every=0",
    "train.evaluate_every=0",
    "train.early_stop_patience=0",
    "checkpoint.every=0",
    "checkpoint.at_end=false",
    "checkpoint.keep_best=0",
    "checkpoint.export=none",
    "checkpoint.resume=never",
    "track.wandb=null",
    "track.tensorboard=false",
    'track.live="no"',
    "parallel.restarts=0",
)


@dataclass(frozen=True, slots=True)
class Point:
    """A step of the test: the rate it was taken with, its loss, and the smoothed loss up to it."""

    rate: float
    loss: float
    smooth: float


@dataclass(frozen=True, slots=True)
class Found:
    """What the curve says: `steepest` is where the smoothed loss falls fastest by the logarithm of the rate, `lowest`
    where it is least. Both None where it never falls."""

    steepest: float | None
    lowest: float | None


@click.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--processes", type=int, metavar="N", help="Short for --set parallel.processes=N.")
@click.option("--from", "low", type=float, default=1e-7, show_default=True, help="The first step's rate.")
@click.option("--to", "high", type=float, default=1.0, show_default=True, help="The last step's rate.")
@click.option("--steps", type=int, default=100, show_default=True, help="Steps from one to the other.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Of the test; default: lr/ in the run folder."
)
@click.option("--dry-run", is_flag=True, help="Print the line that would be run, and stop.")
def lr(
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    low: float,
    high: float,
    steps: int,
    folder: Path | None,
    dry_run: bool,
) -> None:
    """Train a few steps while the learning rate rises by equal factors, and show where the loss falls and breaks.

    Nothing of the run itself is touched. Exit codes: 0 done, 1 the training failed, 2 a wish that cannot be met, 75
    stopped.
    """
    if not 0 < low < high:
        raise WishError(f"the rate rises from {low:g} to {high:g}", "give --from above 0 and below --to")
    if steps < FEWEST:
        raise WishError(f"--steps is {steps}", f"a curve needs {FEWEST} or more")
    loaded, overrides = read(run_file, overrides, processes)
    words = (
        *overrides,
        *STILL,
        f"train.steps={steps}",
        f"train.learning_rate={high!r}",
        f"train.min_learning_rate_ratio={low / high!r}",
    )
    run = load(run_file, words).run
    if run.data is None:
        raise WishError("this run has no data section, so there is nothing to test", "add data.train")
    demand(run)
    folder = folder or loaded.run.folder / FOLDER
    if dry_run:
        print(plan(run, "train", run_file, (*words, f"output={folder}")).line)
        return
    with trial.Stops() as stops:
        ended = trial.run_trial(run_file, words, folder, stops=stops, enough=Watch())
        shutil.rmtree(folder / protocol.CHECKPOINTS, ignore_errors=True)
        if stops.asked:
            sys.exit(errors.PREEMPTED)
    points = smoothed(pairs(folder))
    if len(points) < FEWEST:
        raise TemperError(
            f"the training ended after {len(points)} steps: {ended.sentence}", f"see {folder / trial.LOG}"
        )
    _tell(points, folder, whole=len(points) == steps)


class Watch:
    """Told each record of the training: whether the loss has left for good."""

    def __init__(self) -> None:
        self._best = math.inf

    def __call__(self, record: dict[str, Any]) -> bool:
        """True once a loss is far above the best."""
        loss = record.get("loss")
        if not isinstance(loss, int | float):
            return False
        self._best = min(self._best, loss) if math.isfinite(loss) else self._best
        return not math.isfinite(loss) or loss > DIVERGED * self._best


def pairs(folder: Path) -> list[tuple[float, float]]:
    """Rate and loss of each step that was logged, as long as the loss is a number."""
    found = []
    for record in trial.Records(folder).new():
        loss = record.get("loss")
        if isinstance(loss, int | float):
            if not math.isfinite(loss):
                break
            found.append((float(record["learning_rate"]), float(loss)))
    return found


def smoothed(measured: Sequence[tuple[float, float]]) -> list[Point]:
    """An exponential mean of the losses, its start corrected as Adam's moments are (arXiv 1412.6980)."""
    points, mean = [], 0.0
    for step, (rate, loss) in enumerate(measured, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        points.append(Point(rate, loss, mean / (1 - SMOOTHING**step)))
    return points


def read_off(points: Sequence[Point]) -> Found:
    """Where the smoothed loss is lowest, and where on the way there it falls fastest."""
    bottom = min(range(len(points)), key=lambda at: points[at].smooth)
    if bottom < 2:
        return Found(None, None)

    def slope(at: int) -> float:
        before, after = points[at - 1], points[at + 1]
        return (after.smooth - before.smooth) / math.log10(after.rate / before.rate)

    steepest = min(range(1, bottom), key=slope, default=None)
    if steepest is None or slope(steepest) >= 0:
        return Found(None, points[bottom].rate)
    return Found(points[steepest].rate, points[bottom].rate)


def _tell(points: Sequence[Point], folder: Path, *, whole: bool) -> None:
    found = read_off(points)
    protocol.write_json(
        folder / RESULT,
        {
            "steepest": found.steepest,
            "lowest": found.lowest,
            "diverged": not whole,
            "points": [{"learning_rate": p.rate, "loss": p.loss, "smoothed": p.smooth} for p in points],
        },
    )
    rates, losses = [p.rate for p in points], [p.loss for p in points]
    smooth = [p.smooth for p in points]
    drawn = curve.picture(rates, losses, smooth, mark=found.steepest)
    (folder / PICTURE).write_text(drawn, encoding="utf-8")
    print(curve.text(rates, smooth))
    if not whole:
        print(f"ended after {len(points)} steps, at a rate of {rates[-1]:.2g}: the loss had left for good")
    if found.steepest is None:
        print("the loss never falls: lower --from, or look at the data (`temper data check`)")
    else:
        print(f"falls fastest at {found.steepest:.2g}, lowest at {found.lowest:.2g}")
        print(
            "a peak between the two, nearer the first, is a place to begin; `temper tune` compares whole runs"
        )
    print(f"{folder / PICTURE} and {folder / RESULT}")
