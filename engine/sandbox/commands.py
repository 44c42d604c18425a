"""The sandbox's verbs: run one file, serve many, measure, probe what this machine can isolate, or attack it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from ..errors import PreflightError, WishError
from .attack import CATALOGUE, CATEGORIES, Drill, Outcome, Tally
from .bench import bench as measure
from .foreign.languages import LANGUAGES, find, language_of
from .foreign.toolchain import languages
from .outer.engines import ENGINES
from .pool import Pool
from .probe import Probe
from .probe import probe as probe_machine
from .remedies import PLACES, STEPS
from .serve.options import CEILING, Options, take_token
from .serve.server import serve as serve_programs
from .verdict import LEVELS, MODES, File, Limits, Program, Verdict

_DEFAULTS = Limits()
_SERVED = Options()
_CEILINGS = ("cpu_seconds", "wall_seconds", "memory_mb", "processes", "disk_mb", "output_kb")


@click.group()
def sandbox() -> None:
    """Run strangers' programs in isolation, and see what this machine can isolate."""


def _option(
    name: str, default: str | float, text: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(f"--{name}", type=type(default), default=default, show_default=True, help=text)


_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_LEVEL = click.option("--level", type=click.Choice(LEVELS), help="Weakest isolation that will do.")
_MODE = click.option(
    "--mode", type=click.Choice(MODES), default=MODES[0], show_default=True, help="Jails of programs."
)
_PRELOAD = click.option(
    "--preload", multiple=True, metavar="MODULE", help="Import this once for all programs; repeatable."
)


@sandbox.command()
@click.argument("file", type=_FILE)
@click.option("--language", metavar="NAME", help="Of FILE; without it the suffix tells.")
@click.option("--argument", "arguments", multiple=True, metavar="X", help="For its argv; repeatable.")
@click.option("--stdin", type=_FILE, help="File the program reads as stdin; - is this command's own.")
@click.option(
    "--file", "given", type=_FILE, multiple=True, help="Laid into the program's folder; repeatable."
)
@click.option(
    "--collect",
    multiple=True,
    metavar="NAME",
    help="Bring this file of the program's folder back; repeatable.",
)
@click.option("--into", type=_FOLDER, help="Folder for what is collected.")
@_option("cpu-seconds", _DEFAULTS.cpu_seconds, "Of all its processes together.")
@_option("wall-seconds", _DEFAULTS.wall_seconds, "Only ends programs that sleep.")
@_option("memory-mb", _DEFAULTS.memory_mb, "Of all its processes together.")
@_LEVEL
@_MODE
@_PRELOAD
@click.option(
    "--engine", type=click.Choice(list(ENGINES)), help="Run it in a container of this outer engine."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def run(
    file: Path,
    given: tuple[Path, ...],
    stdin: Path | None,
    collect: tuple[str, ...],
    into: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Run FILE as a script. `passed` means that it came to its end by itself with exit code 0.

    `temper sandbox languages` lists what FILE may be written in besides Python.
    """
    language = asked["language"] or language_of(file)
    _refuse(language, asked["preload"], collect, into)
    limits = Limits(asked["cpu_seconds"], asked["wall_seconds"], asked["memory_mb"])
    program = Program(
        _source(_read(file), language),
        language=language,
        arguments=asked["arguments"],
        stdin=_read(stdin) if stdin else b"",
        files=_given(given),
        collect=collect,
    )
    with Pool(
        1, asked["level"], mode=asked["mode"], preload=asked["preload"], engine=asked["engine"]
    ) as pool:
        verdict = pool.run(program, limits)
    brought = _bring(verdict, into) if into else []
    if as_json:
        click.echo(json.dumps({"verdict": verdict.name, **_without_name(verdict), "files": brought}))
    else:
        _show(verdict)
        _tell_of_files(collect, verdict, brought)


def _refuse(language: str, preload: tuple[str, ...], collect: tuple[str, ...], into: Path | None) -> None:
    """Raise WishError for what does not go together, before any jail is built."""
    if language != "python":
        find(language)
        if preload:
            raise WishError(f"modules cannot be preloaded for {language}", "leave out --preload")
    if collect and not into:
        raise WishError(f"there is no folder for {', '.join(collect)}", "name one with --into")
    if into and not collect:
        raise WishError(f"nothing is to be collected into {into}", "name files with --collect")


def _given(paths: tuple[Path, ...]) -> tuple[File, ...]:
    """Files under their own names, without their folders."""
    files: dict[str, File] = {}
    for path in paths:
        if path.name in files:
            raise WishError(f"two files are named {path.name}", "rename one of them")
        files[path.name] = File(path.name, _read(path), os.access(path, os.X_OK))
    return tuple(files.values())


def _bring(verdict: Verdict, into: Path) -> list[str]:
    """Write what was collected, and say where."""
    brought = []
    for file in verdict.files:
        target = into / file.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.data)
        except OSError as error:
            raise WishError(f"cannot write {target}: {error.strerror}", "name a folder of yours") from None
        brought.append(str(target))
    return brought


def _tell_of_files(collect: tuple[str, ...], verdict: Verdict, brought: list[str]) -> None:
    there = {file.name for file in verdict.files}
    for path in brought:
        click.echo(f"collected {path}", err=True)
    for name in collect:
        if name not in there:
            click.echo(f"not collected: {name} is no plain file of the program's folder", err=True)


def _source(data: bytes, language: str) -> str:
    """A source's text: Python files may name their encoding in a comment."""
    if language == "python":
        with contextlib.suppress(SyntaxError, UnicodeDecodeError):
            return importlib.util.decode_source(data)
    return data.decode("utf-8-sig", "surrogateescape")


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise WishError(f"cannot read {path}: {error.strerror}", "name a readable file") from None


def _without_name(verdict: Verdict) -> dict[str, object]:
    values = asdict(replace(verdict, files=()))
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
    with_what = f", {verdict.toolchain}" if verdict.toolchain else ""
    detail = f": {verdict.detail}" if verdict.detail else ""
    click.echo(f"{verdict.name}{detail} ({used}{with_what})", err=True)


@sandbox.command("languages")
@click.option("--json", "as_json", is_flag=True, help="Print the table as one JSON object.")
def show_languages(as_json: bool) -> None:
    """List the languages programs may be written in, with their versions here or what is missing."""
    rows = {
        name: {
            "version": found.version,
            "missing": found.missing,
            "install": LANGUAGES[name].install if found.missing else "",
            "suffixes": list(LANGUAGES[name].suffixes) if name in LANGUAGES else [".py"],
        }
        for name, found in languages().items()
    }
    if as_json:
        click.echo(json.dumps(rows))
        return
    for name, row in rows.items():
        click.echo(f"{name:12}{row['version'] or 'no: ' + str(row['missing'])}")
        if row["missing"]:
            click.echo(f"{'':12}install {row['install']}")


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
            step = f"refused at {STEPS[found.steps[level]]}; " if found.steps[level] else ""
            lines.append(f"  {'':8} {step}needs {found.needs[level]}")
    if found.remedies:
        lines.append(f"this looks like {', '.join(PLACES[place] for place in found.places)}")
    for here, heading in ((True, "what helps here"), (False, "what helps elsewhere")):
        chosen = [remedy for remedy in found.remedies if remedy.here == here]
        lines += [heading] if chosen else []
        lines += [f"  {remedy.step} ({PLACES[remedy.place]}): {remedy.how}" for remedy in chosen]
    lines.append("outer engines, for a second boundary:")
    for engine in found.engines:
        version = f" ({engine.version})" if engine.version else ""
        lines.append(
            f"  {engine.name:8} {'works' if not engine.problem else 'no: ' + engine.problem}{version}"
        )
        if engine.problem:
            lines.append(f"  {'':8} needs: {engine.needs}")
    return "\n".join(lines)


@sandbox.command()
@click.option("--workers", type=click.IntRange(1), help="Programs side by side.  [default: one a CPU]")
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="For each way.")
@click.option("--level", type=click.Choice(LEVELS), help="Weakest isolation that will do.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def bench(workers: int | None, seconds: float, level: str | None, as_json: bool) -> None:
    """Measure how fast this machine judges short programs, in each mode."""
    if not math.isfinite(seconds):
        raise WishError(f"{seconds} seconds cannot be measured", "give a number, such as 5")
    workers = workers or len(os.sched_getaffinity(0))
    best, rows = measure(workers, seconds, level)
    if as_json:
        click.echo(json.dumps({"isolation": best, "workers": workers, "rows": [asdict(row) for row in rows]}))
        return
    click.echo(f"{workers} workers, isolation {best}, Python {platform.python_version()}\n")
    click.echo(f"{'':36}{'programs/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'misjudged':>11}")
    for row in rows:
        figures = f"{row.programs_per_second:11.0f}{row.p50_ms:9.1f}{row.p99_ms:9.1f}{row.cpu_ms:9.1f}"
        click.echo(f"{row.way:36}{figures}{row.misjudged:11}")


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the bait is taken in
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


@sandbox.command()
@_option("host", _SERVED.host, "Any but this machine's own needs a token.")
@_option("port", _SERVED.port, "0 takes any free port.")
@_option("workers", _SERVED.workers, "Programs that run at a time; 0 is one a CPU.")
@_LEVEL
@_MODE
@_PRELOAD
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
