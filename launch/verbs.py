"""The verbs that start ranks, and `version`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import click

from engine.config import Loaded, demand, load
from engine.errors import WishError
from launch.command import plan

STANDS_ON = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "datasets",
    "evaluate",
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """RUN and the ways to change it, the same for every verb that reads one."""
    for decorate in (
        click.argument("run_file", metavar="RUN.yaml"),
        click.option(
            "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
        ),
        click.option("--processes", type=int, metavar="N", help="Short for --set parallel.processes=N."),
        click.option("--dry-run", is_flag=True, help="Print the line that would be run, and stop."),
    )[::-1]:
        command = decorate(command)
    return command


def read(run_file: str, overrides: tuple[str, ...], processes: int | None) -> tuple[Loaded, tuple[str, ...]]:
    """A run file with its overrides, checked as far as that goes without torch; and the overrides in full."""
    if processes is not None:
        overrides = (*overrides, f"parallel.processes={processes}")
    return load(run_file, overrides), overrides


def start(
    verb: str,
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    *,
    dry_run: bool,
    where: str | None = None,
    unchecked: bool = False,
    words: tuple[str, ...] = (),
) -> None:
    """Print the launch line of a verb and, unless it is a dry run, run it and exit with its verdict's code.

    `where` names a cluster; empty: this machine. `unchecked` leaves out the look at its nodes. `words` are further
    options of the verb, handed on to the ranks.
    """
    loaded, overrides = read(run_file, overrides, processes)
    if where is not None:
        from launch.submit import attached, composed, shown

        if dry_run:
            click.echo(shown(composed(loaded.run, where, verb, words)), nl=False)
            return
        sys.exit(attached(loaded.run, where, verb, words, unchecked=unchecked))
    if unchecked:
        raise WishError("--unchecked is given without --on", "only a cluster is checked first: leave it out")
    demand(loaded.run, training=verb == "train")
    launch = plan(loaded.run, verb, run_file, overrides, words)
    # Whoever asked for JSON reads standard output with a program.
    click.echo(launch.line, err="--json" in words and not dry_run)
    if dry_run:
        return
    from launch.agent import supervise

    if verb == "train":
        from launch.outlook import leave_prediction

        leave_prediction(loaded.run)
    sys.exit(supervise(launch).exit_code)


def on_hosts(command: Callable[..., Any]) -> Callable[..., Any]:
    """The cluster, and whether its nodes are looked at first."""
    text = "Run on this cluster (kind: local or hosts) and wait for the end."
    unchecked = click.option("--unchecked", is_flag=True, help="With --on: leave out `temper check`.")
    return click.option("--on", "where", metavar="CLUSTER", help=text)(unchecked(command))


@click.command()
@run_options
@on_hosts
def train(
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    dry_run: bool,
    where: str | None,
    unchecked: bool,
) -> None:
    """Fine-tune a model: print the `accelerate launch` line, then run it.

    Exit codes: 0 done, 1 a bug or a dead rank, 2 a wish that cannot be met, 75 stopped and saved, 93 do not requeue.
    """
    start("train", run_file, overrides, processes, dry_run=dry_run, where=where, unchecked=unchecked)


@click.command()
@run_options
@on_hosts
@click.option("--base", is_flag=True, help="Judge the model the run starts from instead of its result.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(
    run_file: str,
    overrides: tuple[str, ...],
    processes: int | None,
    dry_run: bool,
    where: str | None,
    unchecked: bool,
    base: bool,
    as_json: bool,
) -> None:
    """Sample a benchmark's tasks, run the answers in the sandbox, report pass@k."""
    words = ("--base",) * base + ("--json",) * as_json
    start(
        "evaluate",
        run_file,
        overrides,
        processes,
        dry_run=dry_run,
        where=where,
        unchecked=unchecked,
        words=words,
    )


@click.command()
def version() -> None:
    """Print the versions of Temper and what it stands on."""
    from launch.cli import VERSION

    print(f"temper {VERSION}, Python {platform.python_version()}, {platform.system()} {platform.release()}")
    for name in STANDS_ON:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed")
