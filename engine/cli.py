"""The verbs a rank runs; errors become exit codes, one sentence and a crash file, never a stack trace for a wish."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import heartbeat, protocol
from engine.config import Run, demand, dump, load
from engine.errors import BUG, DONE, WRONG_WISH, Preempted, TemperError, WishError, misused, spoken

if TYPE_CHECKING:
    from engine.dist import World

# Verbs of the rooms, by the module that offers them: read only when called, so that `score` never imports torch.
ROOMS = {
    "sandbox": "engine.sandbox.commands",
    "score": "engine.evaluate.commands",
    "rescore": "engine.evaluate.commands",
    "benchmark": "engine.evaluate.commands",
    "compare": "engine.evaluate.compare.commands",
    "report": "engine.evaluate.report.commands",
    "card": "engine.evaluate.report.commands",
    "data": "engine.data.commands",
    "export": "engine.export.commands",
}


class Verbs(click.Group):
    """A click group that imports a room's verb when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, without importing anything."""
        return sorted([*super().list_commands(ctx), *ROOMS])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb, imported now if a room has it."""
        if name in ROOMS:
            return getattr(importlib.import_module(ROOMS[name]), name)
        return super().get_command(ctx, name)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
def verbs() -> None:
    """What one rank of Temper does."""


run_options = [
    click.argument("run_file", type=click.Path(path_type=Path)),
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one value of the run."
    ),
]


def takes_run(command: Any) -> Any:
    """A verb that reads a run file and its overrides."""
    for option in reversed(run_options):
        command = option(command)
    return command


@verbs.command()
@takes_run
def train(run_file: Path, overrides: tuple[str, ...]) -> None:
    """Train as the run file says."""
    run = _read(run_file, overrides, training=True)
    with _Attempt(run) as attempt:
        from engine.dist import start
        from engine.evaluate import subject
        from engine.train import train as train_run

        attempt.world = world = start(run)
        if world.first:
            _keep(run)
            protocol.clear_attempt(run.folder)
        world.barrier()
        held_out = _held_out(run)
        judge = subject.in_loop(run, world) if run.train.evaluate_every else None
        outcome = train_run(run, world, evaluate=judge, benchmark_texts=held_out, where=attempt.where)
        if world.first:
            print(
                f"{outcome.status.replace('_', ' ')} at step {outcome.step} in {outcome.seconds:.1f} s",
                flush=True,
            )


@verbs.command()
@takes_run
@click.option("--base", is_flag=True, help="Judge the model the run starts from instead of its result.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(run_file: Path, overrides: tuple[str, ...], base: bool, as_json: bool) -> None:
    """Sample a benchmark, execute the programs, print pass@k."""
    run = _read(run_file, overrides, training=False)
    with _Attempt(run) as attempt:
        from engine.dist import start
        from engine.evaluate import subject

        attempt.world = world = start(run, sharded=False, computes=not run.evaluate.server.url)
        attempt.where.at("evaluate")
        if world.first and (run.data is None or not (run.folder / protocol.RUN).exists()):
            _keep(run)
        summary = subject.evaluate_run(run, world, base=base, progress=_told(attempt.where))
        if summary is None:
            return
        click.echo(json.dumps(summary.as_json(), indent=1) if as_json else summary.table())
        summary.found.require_verdicts()


class _Attempt:
    """One attempt of a rank: whatever ends it leaves the right words, files and exit code."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.world: World | None = None
        self.where = heartbeat.begin(_rank())

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        code = DONE
        if error is not None and not isinstance(error, SystemExit):
            code = error.exit_code if isinstance(error, TemperError) else BUG
            if not isinstance(error, Preempted):
                self._record(error, code)
            self._say(error)
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else BUG
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        if self.world is not None and code in (DONE, Preempted.exit_code):
            self.world.close()
        # Not sys.exit: threads of gloo and DeepSpeed may abort an interpreter that tears itself down.
        os._exit(code)

    def _record(self, error: BaseException, code: int) -> None:
        wanted = isinstance(error, TemperError)
        crash = protocol.Crash(
            rank=_rank(),
            host=protocol.host(),
            pid=os.getpid(),
            phase=self.where.phase,
            step=self.where.step,
            error=type(error).__name__,
            message=str(error),
            exit_code=code,
            seconds=time.time(),
            traceback="" if wanted else "".join(traceback.format_exception(error)),
        )
        for folder in (self.run.folder, self.where.folder):
            try:
                if folder is not None:
                    protocol.write_crash(folder, crash)
                return
            except OSError as problem:
                # A full disk is a frequent cause, and must not take its own trace away: memory is the second place.
                _tell(spoken(f"the crash file could not be written: {problem}"))

    def _say(self, error: BaseException) -> None:
        """A wish's error is said once, by rank 0 if it met it too; a bug is told by each rank that met it."""
        if isinstance(error, TemperError) and _rank() > 0:
            time.sleep(0.5)
            if any(
                crash.rank == 0 and crash.message == str(error)
                for crash in protocol.read_crashes(self.run.folder)
            ):
                return
        prefix = f"rank {_rank()}: " if _rank() > 0 else ""
        if isinstance(error, TemperError):
            _tell(spoken(f"{prefix}{error}"))
        else:
            _tell(f"{prefix}{''.join(traceback.format_exception(error))}")


def _tell(text: str) -> None:
    """Print to standard error, which may be a file on a disk that is full: the way out goes on without it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _read(run_file: Path, overrides: tuple[str, ...], *, training: bool) -> Run:
    run = load(run_file, overrides).run
    demand(run, int(os.environ.get("WORLD_SIZE", "1")), training=training)
    return run


def _held_out(run: Run) -> list[str] | None:
    """Texts of the run's benchmark, which no training row may hold; None where there is nothing to compare."""
    from engine.evaluate.benchmarks import texts

    wish = run.evaluate
    if not wish.benchmark or run.data is None or not run.data.decontaminate:
        return None
    return texts(wish.benchmark, wish.data)


def _keep(run: Run) -> None:
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / protocol.RUN).write_text(dump(run), encoding="utf-8")
    except OSError as error:
        raise WishError(
            f"the run folder {run.folder} cannot be written: {error.strerror}",
            "set `output` to a folder you may write to",
        ) from None


def _told(where: heartbeat.Where) -> Any:
    """Progress of an evaluation: a line now and then, and a sign of life each time."""
    shown = {"at": 0.0}

    def tell(phase: str, done: int, whole: int) -> None:
        now = time.monotonic()
        where.at("evaluate")
        if done == whole or now - shown["at"] > 3:
            shown["at"] = now
            print(f"{phase}: {done}/{whole}", file=sys.stderr, flush=True)

    return tell


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def main() -> None:
    """Run a verb. User errors end in one sentence and their exit code; bugs keep their stack trace."""
    try:
        verbs(standalone_mode=False, prog_name="temper", obj={"benchmark_texts": _held_out})
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        print(misused(error), file=sys.stderr)
        sys.exit(WRONG_WISH)
    except TemperError as error:
        if _rank() == 0:
            print(spoken(error), file=sys.stderr)
        sys.exit(error.exit_code)
