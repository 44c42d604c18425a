"""The sandbox's verbs: run one file, or probe what this machine can isolate."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ..errors import WishError
from .probe import Probe
from .probe import probe as probe_machine
from .run import run as run_program
from .verdict import LEVELS, Limits, Program, Verdict

_DEFAULTS = Limits()


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
