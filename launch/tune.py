"""`temper tune`: search over config keys; each trial is one ordinary training, ended early where it falls behind."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from engine import errors, protocol
from engine.config import Run, demand, dump, load
from engine.errors import WishError
from launch import ranking, study, trial
from launch.command import plan
from launch.space import Dimension, read_space
from launch.study import Claimed, Method, Search, Wish
from launch.verbs import read

FOLDER = "tune"
# So many crashes on end are the run's or the machine's, and not the values'.
CRASHES_ON_END = 3
WEIGHTS = (protocol.CHECKPOINTS, protocol.MODEL, protocol.ADAPTER)


@dataclass(frozen=True, slots=True)
class Task:
    """What every trial of a call has in common."""

    run_file: str
    overrides: tuple[str, ...]
    wish: Wish
    keep: str
    on: str | None


@click.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option("--space", "space_file", metavar="SPACE.yaml", help="The keys and the values they may take.")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value for all trials.")
@click.option("--processes", type=int, metavar="N", help="Short for --set parallel.processes=N.")
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="In all, with those of earlier calls.",
)
@click.option("--metric", metavar="NAME", help="What is compared; default: the run's checkpoint.metric.")
@click.option(
    "--take",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which measurement of a trial counts.",
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random"]),
    default="tpe",
    show_default=True,
    help="How values are drawn.",
)
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    default="median",
    show_default=True,
    help="Which trials are ended early.",
)
@click.option(
    "--startup",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Trials before any is pruned or modelled.",
)
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="Steps before a trial is pruned."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Start no trial after this long."
)
@click.option(
    "--keep",
    type=click.Choice(["best", "all", "none"]),
    default="best",
    show_default=True,
    help="Whose checkpoints and weights stay.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Of the search; default: tune/ in the run folder."
)
@click.option("--on", metavar="HARDWARE", help="Refuse trials that by `temper plan` do not fit, e.g. 8xh100.")
@click.option("--show", is_flag=True, help="Print what the search has found so far, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("--dry-run", is_flag=True, help="Print the space and the line of a trial, and stop.")
def tune(
    run_file: str,
    space_file: str | None,
    overrides: tuple[str, ...],
    processes: int | None,
    metric: str | None,
    folder: Path | None,
    **options: Any,
) -> None:
    """Search over config keys for the best value of a metric; the same command goes on where it was stopped.

    Exit codes: 0 a best trial was found, 75 stopped (run it again), 1 no trial came to its end, 2 all were refused,
    or a wish that cannot be met.
    """
    if metric is not None:
        overrides = (*overrides, f"checkpoint.metric={metric}")
    loaded, overrides = read(run_file, overrides, processes)
    run, say = loaded.run, _say if not options["as_json"] else _hush
    folder = folder or run.folder / FOLDER
    method = Method(
        options["sampler"], options["pruner"], options["startup"], options["warmup"], run.train.steps
    )
    if options["show"]:
        if not (folder / study.JOURNAL).is_file():
            raise WishError(
                f"{folder} holds no search", "start one with `temper tune RUN.yaml --space SPACE.yaml`"
            )
        search = Search(folder, method, seed=run.seed)
        search.read()
        ranking.show(search, json_wanted=options["as_json"])
        return
    if space_file is None:
        raise WishError("--space is missing", "name a YAML file of keys and ranges, or use --show")
    demand_measured(run)
    space = read_space(space_file, run_file, overrides)
    if options["dry_run"]:
        _dry(run, run_file, overrides, space)
        return
    search = Search(folder, method, seed=run.seed)
    minimize = run.checkpoint.mode == "min" or (
        run.checkpoint.mode == "auto" and "loss" in run.checkpoint.metric.lower()
    )
    wish = Wish(dump(run), space, run.checkpoint.metric, minimize, options["take"])
    search.begin(wish, own_values(run, space))
    task = Task(run_file, overrides, wish, options["keep"], options["on"])
    with trial.Stops() as stops:
        crashed = work(search, task, stops, say, trials=options["trials"], timeout=options["timeout"])
        ranking.show(search, json_wanted=options["as_json"])
        sys.exit(errors.PREEMPTED if stops.asked else _exit_code(search, crashed))


def demand_measured(run: Run) -> None:
    """Refuse a Run whose trials could not be compared.

    Raises:
        WishError: it is refused as it is, trains nothing, or never measures its metric.
    """
    demand(run)
    if run.data is None:
        raise WishError("this run has no data section, so there is nothing to tune", "add data.train")
    if run.checkpoint.metric == "validation_loss" and not (
        run.data.validation or run.data.validation_fraction
    ):
        raise WishError(
            "trials are compared by validation_loss, which is never measured",
            "set data.validation or data.validation_fraction, or name another --metric",
        )


def own_values(run: Run, space: tuple[Dimension, ...]) -> dict[str, Any] | None:
    """The Run's own values, where all of them lie in the space: what the search has to beat."""
    values = {one.key: one.value_of(run) for one in space}
    return None if any(value is None for value in values.values()) else values


def work(
    search: Search,
    task: Task,
    stops: trial.Stops,
    say: Callable[[str], None],
    *,
    trials: int,
    timeout: float | None,
) -> bool:
    """Try one trial after the other until there are enough; True if it gave up, as they only crash."""
    began, crashes = time.monotonic(), 0
    while not stops.asked and (timeout is None or time.monotonic() - began < timeout):
        claimed = search.claim(trials)
        if claimed is None:
            break
        again = " goes on" if claimed.resumed else ""
        say(f"trial {claimed.number}{again}  {ranking.short(claimed.words)}")
        try:
            state, told = attempt(search, task, claimed, stops)
        finally:
            claimed.release()
        say(f"trial {claimed.number}  {told}")
        if state is not None:
            clear(search, task.keep)
            ranking.write(search, task.run_file, task.overrides)
        crashes = crashes + 1 if state == "failed" else 0
        if crashes == CRASHES_ON_END:
            say(f"{crashes} trials on end have failed: see {claimed.folder / trial.LOG}")
            return True
    return False


def attempt(
    search: Search, task: Task, claimed: Claimed, stops: trial.Stops
) -> tuple[study.State | None, str]:
    """Train one trial and tell the search; None if it was stopped, to be continued."""
    try:
        run = load(task.run_file, (*task.overrides, *claimed.words)).run
        demand(run)
        if task.on is not None:
            _demand_room(run, task.on)
    except WishError as error:
        search.tell(claimed, "refused", reason=str(error))
        return "refused", f"refused: {error}"
    wish, given_up, began = task.wish, False, time.monotonic()

    def enough(record: dict[str, Any]) -> bool:
        nonlocal given_up
        value = record.get(wish.metric)
        if isinstance(value, int | float):
            given_up = claimed.report(float(value), record["step"]) or given_up
        return given_up

    # Killed after the last step of a trial and before it was told: it is not trained again.
    outcome = protocol.read_outcome(claimed.folder)
    if outcome is not None and outcome.status in ("finished", "early_stopped"):
        end = trial.Ended(errors.DONE, "", False)
    else:
        end = trial.run_trial(
            task.run_file, (*task.overrides, *claimed.words), claimed.folder, stops=stops, enough=enough
        )
    seconds = round(time.monotonic() - began, 1)
    step, value = measured(claimed.folder, wish)
    if given_up and end.exit_code != errors.DONE:
        search.tell(claimed, "pruned", step=step, seconds=seconds, reason=f"pruned at step {step}")
        return "pruned", f"pruned at step {step}: {wish.metric} {ranking.number(value)}"
    if end.stopped or end.exit_code == errors.PREEMPTED:
        stops.asked = max(stops.asked, 1)
        return None, f"stopped: {end.sentence}"
    return _judge(search, claimed, end, wish, step, value, seconds)


def _judge(
    search: Search,
    claimed: Claimed,
    end: trial.Ended,
    wish: Wish,
    step: int | None,
    value: float | None,
    seconds: float,
) -> tuple[study.State, str]:
    """Tell the search how a training that ended by itself went."""
    if end.exit_code == errors.DONE and value is not None:
        search.tell(claimed, "done", value=value, step=step, seconds=seconds)
        return "done", f"{wish.metric} {ranking.number(value)} at step {step}, {seconds:.0f} s"
    if end.exit_code == errors.DONE:
        reason = f"{wish.metric} was never logged as a number"
        search.tell(claimed, "failed", reason=reason, seconds=seconds)
        return "failed", f"failed: {reason}"
    diverged = end.exit_code == errors.DO_NOT_REQUEUE and ("finite" in end.sentence or "norm" in end.sentence)
    if end.exit_code == errors.WRONG_WISH or diverged:
        # No failure of the search: these values are bad, and the sampler is told so.
        state: study.State = "refused" if end.exit_code == errors.WRONG_WISH else "pruned"
        search.tell(claimed, state, reason=end.sentence, step=step, seconds=seconds)
        return state, f"{state}: {end.sentence}"
    search.tell(claimed, "failed", reason=end.sentence, seconds=seconds)
    return "failed", f"failed: {end.sentence}"


def measured(folder: Path, wish: Wish) -> tuple[int | None, float | None]:
    """The measurement of a trial that counts, and its step."""
    found = [
        (record["step"], float(record[wish.metric]))
        for record in trial.Records(folder).new()
        if isinstance(record.get(wish.metric), int | float) and math.isfinite(record[wish.metric])
    ]
    if not found:
        return None, None
    sign = 1 if wish.minimize else -1
    return found[-1] if wish.take == "last" else min(found, key=lambda one: sign * one[1])


def clear(search: Search, keep: str) -> None:
    """Remove checkpoints and weights of trials that have ended, but of those to keep."""
    if keep == "all":
        return
    best = search.best() if keep == "best" else None
    for row in search.rows():
        if row.state != "running" and (best is None or row.number != best.number):
            for name in WEIGHTS:
                shutil.rmtree(search.trial_folder(row.number) / name, ignore_errors=True)


def _demand_room(run: Run, hardware: str) -> None:
    """Refuse values with which the run does not fit, as `temper plan --on` tells."""
    from launch.architecture import architecture
    from launch.cluster import place
    from launch.fit import fits
    from launch.memory import estimate
    from launch.states import job

    room = place(hardware).hardware(hardware)
    if room is None:
        raise WishError(f"{hardware} names no GPUs", "name hardware such as 8xh100, or leave --on out")
    memory = estimate(job(run, architecture(run)))
    if not fits(memory, room, run.parallel.processes):
        raise WishError(f"by plan it needs {memory.total / 2**30:.1f} GiB a GPU", f"{room.name} has less")


def _dry(run: Run, run_file: str, overrides: tuple[str, ...], space: tuple[Dimension, ...]) -> None:
    for one in space:
        print(one.text)
    words = tuple(f"{one.key}={one.ends[0]}" for one in space)
    folder = run.folder / FOLDER / "trial-0000"
    first = load(run_file, (*overrides, *words, f"output={folder}"))
    print(plan(first.run, "train", run_file, (*overrides, *words, f"output={folder}")).line)


def _exit_code(search: Search, crashed: bool) -> int:
    if search.best() is not None and not crashed:
        return errors.DONE
    states = {row.state for row in search.rows()}
    return errors.WRONG_WISH if states == {"refused"} else errors.BUG


def _say(text: str) -> None:
    print(text, flush=True)


def _hush(text: str) -> None:
    """Whoever asked for JSON reads standard output with a program."""
    print(text, file=sys.stderr, flush=True)
