"""The sandbox's verbs: run one file, serve many, probe what this machine can isolate, or attack it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from ..errors import PreflightError, WishError
from .attack import CATALOGUE, CATEGORIES, Drill, Outcome, Tally
from .probe import Probe
from .probe import probe as probe_machine
from .run import run as run_program
from .serve.options import CEILING, Options, take_token
from .serve.server import serve as serve_programs
from .verdict import LEVELS, MODES, Limits, Program, Verdict

_DEFAULTS = Limits()
_SERVED = Options()
_CEILINGS = ("cpu_seconds", "wall_seconds", "memory_mb", "processes", "disk_mb", "output_kb")


@click.group()
def sandbox() -> None:
    """Run strangers' programs in isolation, and see what this machine can isolate."""


@sandbox.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--stdin", type=click.Path(dir_okay=False, path_type=Path), help="File the program reads as stdin."
)
@click.option("--cpu-seconds", type=float, default=_DEFAULTS.cpu_seconds, show_default=True)
@click.option("--wall-seconds", type=float, default=_DEFAULTS.wall_seconds, show_default=True)
@click.option("--memory-mb", type=int, default=_DEFAULTS.memory_mb, show_default=True)
@click.option("--level", type=click.Choice(LEVELS), help="Weakest isolation that will do.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def run(
    file: Path,
    stdin: Path | None,
    cpu_seconds: float,
    wall_seconds: float,
    memory_mb: int,
    level: str | None,
    as_json: bool,
) -> None:
    """Run FILE as a Python script. `passed` means that it came to its end by itself with exit code 0."""
    limits = Limits(cpu_seconds=cpu_seconds, wall_seconds=wall_seconds, memory_mb=memory_mb)
    program = Program(
        _read(file).decode("utf-8-sig", "surrogateescape"), stdin=_read(stdin) if stdin else b""
    )
    verdict = run_program(program, limits, level=level)
    if as_json:
        click.echo(json.dumps({"verdict": verdict.name, **_without_name(verdict)}))
    else:
        _show(verdict)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WishError(f"cannot read {path}: {error.strerror}", "name a readable file") from None


def _without_name(verdict: Verdict) -> dict[str, object]:
    values = asdict(verdict)
    del values["name"]
    return values


def _show(verdict: Verdict) -> None:
    """The program's own output on its own streams, then one line of judgement on stderr."""
    sys.stdout.write(verdict.stdout)
    sys.stdout.flush()
    sys.stderr.write(verdict.stderr)
    used = (
        f"{verdict.cpu_seconds:.3f} CPU s, {verdict.wall_seconds:.3f} s, {verdict.peak_memory_mb:.0f} MB, "
        f"isolation {verdict.isolation}"
    )
    detail = f": {verdict.detail}" if verdict.detail else ""
    click.echo(f"{verdict.name}{detail} ({used})", err=True)


@sandbox.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
def probe(as_json: bool) -> None:
    """Try each level of isolation on this machine and say what is missing for those that fail."""
    found = probe_machine()
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        click.echo(_table(found))


def _table(found: Probe) -> str:
    lines = [f"best isolation here: {found.level}"]
    for level, problem in found.levels.items():
        lines.append(f"  {level:8} {'works' if not problem else 'no: ' + problem}")
        if problem:
            lines.append(f"  {'':8} needs {found.needs[level]}")
    return "\n".join(lines)


@sandbox.command()
@click.option("--level", type=click.Choice(LEVELS), help="Exactly this level; the best there is by default.")
@click.option(
    "--mode", type=click.Choice(MODES), default="reused", show_default=True, help="Jails of programs."
)
@click.option("--only", type=click.Choice(CATEGORIES), help="Programs of this category alone.")
@click.option("--json", "as_json", is_flag=True, help="Print every outcome, as one JSON object.")
def attack(level: str | None, mode: str, only: str | None, as_json: bool) -> None:
    """Try hostile programs of 58 classes on this machine and say which of them the sandbox held.

    After each the next programs must be judged right, and nothing of it may be left. Exit code 3 when one was not
    held.
    """
    chosen = [entry for entry in CATALOGUE if only in (None, entry.category)]
    outcomes: list[Outcome] = []
    with Drill(level, mode) as drill:
        with click.progressbar(chosen, label="attacking", file=sys.stderr) as entries:
            for entry in entries:
                outcomes += drill.trials(entry)
        tally = Tally(outcomes, drill.close())
    summary = tally.summary(drill.level, mode)
    if as_json:
        records = [{**asdict(outcome), "held": outcome.held} for outcome in outcomes]
        click.echo(
            json.dumps({"summary": summary, "held": tally.held, "left": tally.left, "outcomes": records})
        )
    else:
        click.echo("\n".join([*tally.lines(), summary]))
    if not tally.held:
        raise PreflightError(
            f"the sandbox did not hold every program: {summary}",
            "run nobody's code here below a level that holds, and report what the table names",
        )


def _option(
    name: str, default: str | float, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}", type=type(default), default=default, show_default=True, help=text)


@sandbox.command()
@_option("host", _SERVED.host, "Any but this machine's own needs a token.")
@_option("port", _SERVED.port, "0 takes any free port.")
@_option("workers", _SERVED.workers, "Programs that run at a time; 0 is one a CPU.")
@click.option("--level", type=click.Choice(LEVELS), help="Weakest isolation that will do.")
@click.option(
    "--mode", type=click.Choice(MODES), default=_SERVED.mode, show_default=True, help="Jails of programs."
)
@click.option(
    "--preload", multiple=True, metavar="MODULE", help="Import this once for all programs; repeatable."
)
@_option("cpu-seconds", CEILING.cpu_seconds, "Most that a client gets.")
@_option("wall-seconds", CEILING.wall_seconds, "Most that a client gets.")
@_option("memory-mb", CEILING.memory_mb, "Most that a client gets.")
@_option("processes", CEILING.processes, "Most that a client gets.")
@_option("disk-mb", CEILING.disk_mb, "Scratch of each program.")
@_option("output-kb", CEILING.output_kb, "Kept of a program's stdout, and of its stderr.")
@_option("queue", _SERVED.queue, "Programs that may wait; the next ones are answered 429.")
@_option("body-mb", _SERVED.body_mb, "Largest request.")
@_option("drain-seconds", _SERVED.drain_seconds, "Time to finish what was admitted before a stop.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token that clients send; TEMPER_SANDBOX_TOKEN in the environment does the same.",
)
def serve(token_file: Path | None, **asked: Any) -> None:
    """Judge programs over HTTP, for reward functions and other tools.

    POST /run_code takes SandboxFusion's requests, /test_program open-instruct's, /judge and /run_batch our own.
    """
    limits = {name: asked.pop(name) for name in _CEILINGS}
    token = take_token(token_file, os.environ)
    serve_programs(Options(ceiling=replace(CEILING, **limits), token=token, **asked))
