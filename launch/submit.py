"""The verbs for places: hand a run over, ask about it, read its logs, take it back."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from engine import protocol
from engine.config import Run, demand
from engine.errors import WishError
from launch import attempts, batch, processes, reports, submission
from launch.backends import BACKENDS, Submitted, hosts, local, slurm
from launch.backends.submitted import keep, newest
from launch.cluster import Hosts, Kubernetes, Local, Slurm, place
from launch.lead import Lead
from launch.records import last_step
from launch.submission import Submission, allowed, common_files
from launch.survey import passed, wanted
from launch.verbs import read

STARTERS = {"local": local.starts, "hosts": hosts.starts, "slurm": slurm.starts}


@click.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option("--on", "where", required=True, metavar="CLUSTER", help="The cluster's YAML file.")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--processes", type=int, metavar="N", help="Ranks on each node.")
@click.option("--evaluate", "judge", is_flag=True, help="Evaluate the run instead of training it.")
@click.option("--base", is_flag=True, help="With --evaluate: judge the model the run starts from.")
@click.option("--dry-run", is_flag=True, help="Print the files and the command, and stop.")
@click.option(
    "--unchecked",
    is_flag=True,
    help="Leave out `temper check`, which looks at local and hosts first, and at nodes of SLURM in the job.",
)
def submit(
    run_file: str,
    where: str,
    overrides: tuple[str, ...],
    processes: int | None,
    judge: bool,
    base: bool,
    dry_run: bool,
    unchecked: bool,
) -> None:
    """Hand a run to a cluster and return at once.

    Exit codes: 0 it was taken, 2 a wish that cannot be met, 3 the nodes are not ready or the place refused.
    """
    if base and not judge:
        raise WishError("--base is given without --evaluate", "add --evaluate, or leave --base out")
    verb = "evaluate" if judge else "train"
    run = read(run_file, overrides, processes)[0].run
    made = composed(run, where, verb, ("--base",) * base, unchecked=unchecked)
    if dry_run:
        click.echo(shown(made), nl=False)
        return
    if not unchecked:
        checked(run, made)
    written(made)
    job = BACKENDS[made.place.kind].submit(made)
    keep(Submitted(made.number, made.place.kind, job, socket.gethostname(), protocol.now(), str(run.folder)))
    click.echo(f"{made.name}: {made.place.kind} took it as {job}; `temper status {run.folder}` tells more")


def composed(
    run: Run, where: str, verb: str, words: tuple[str, ...] = (), *, unchecked: bool = False
) -> Submission:
    """The submission of a Run to a place.

    Raises:
        WishError: the place does not have what the Run needs, or the Run what holds for this machine alone.
    """
    if verb == "train" and run.parallel.restarts:
        raise WishError(
            f"parallel.restarts is {run.parallel.restarts}, which holds for `temper train` "
            "on this machine without --on",
            "set it to 0",
        )
    found = place(where)
    world_size = found.size * run.parallel.processes
    demand(run, world_size, training=verb == "train")
    demand_devices(run, found, where)
    return submission.compose(run, found, verb, words, unchecked=unchecked)


def demand_devices(run: Run, found: Local | Hosts | Slurm | Kubernetes, where: str) -> None:
    """Refuse ranks that would find no device.

    Raises:
        WishError: more ranks on a node than GPUs, or GPU ranks on nodes without.
    """
    parallel = run.parallel
    if found.gpus_per_node == 0 and parallel.device != "cpu":
        raise WishError(
            f"parallel.device is {parallel.device} and the nodes of {where} have no GPU",
            "set parallel.device to cpu",
        )
    if parallel.device != "cpu" and parallel.processes > found.gpus_per_node:
        raise WishError(
            f"parallel.processes is {parallel.processes} on each node, and those of {where} have "
            f"{found.gpus_per_node} GPUs",
            f"use --processes {found.gpus_per_node}",
        )


def checked(run: Run, made: Submission) -> None:
    """Look at the nodes before anything is written, where they can be reached before the run has them."""
    _demand_idle(made.launch.folder)
    allowed(made)
    if isinstance(made.place, Local | Hosts):
        passed(wanted(run, made.place, made.launch.verb), made.place)


def written(made: Submission) -> None:
    """Write a submission's files; values of variables only where the place reads them from a file.

    Raises:
        WishError: an earlier submission of the run folder is, or may be, at work in it.
    """
    _demand_idle(made.launch.folder)
    values = allowed(made)
    files = (*common_files(made), *BACKENDS[made.place.kind].render(made))
    submission.write(made, files, values={} if made.place.kind == "kubernetes" else values)


def _demand_idle(folder: Path) -> None:
    old = newest(folder)
    if old is None:
        return
    state = BACKENDS[old.kind].status(old)
    # Where the lead is a process, only the machine it runs on can tell that it has ended.
    unknown = state.word == "unknown" and old.kind in ("local", "hosts")
    if unknown and reports.newest_verdict(folder, old.seconds) is not None:
        return
    if unknown or state.word in ("queued", "running"):
        how = "may still be running" if unknown else f"is {state.word}"
        raise WishError(
            f"{folder} was submitted before and {how} ({state.detail})",
            f"wait, or stop it with `temper cancel {folder}`",
        )


def shown(made: Submission) -> str:
    """All that would be written and run, as text: the files byte for byte, variables by name and length."""
    return "".join(_shown(made))


def _shown(made: Submission) -> Iterator[str]:
    backend = BACKENDS[made.place.kind]
    launch = made.launch
    each = f"{launch.nodes} node{'s' * (launch.nodes > 1)} x {launch.processes} ranks a node"
    yield f"# {each} = {launch.world_size} ranks, {launch.strategy}\n"
    for file in (*common_files(made), *backend.render(made)):
        yield f"\n# {made.here / file.name}\n{file.text}"
    for name, value in allowed(made).items():
        yield f"\n# environment: {name}, {len(value)} characters"
    if made.code is not None:
        yield f"\n# {made.here / submission.CODE}/: a copy of {' and '.join(submission.PACKAGES)} as they are now"
    if isinstance(made.place, Hosts):
        for start in hosts.starts(made, "ATTEMPT"):
            yield f"\n# node {start.nodes[0]}: {shlex.join(start.argv)}"
    yield f"\n# {shlex.join(backend.command(made))}\n"


def attached(run: Run, where: str, verb: str, words: tuple[str, ...], *, unchecked: bool) -> int:
    """Run on this machine or on hosts and wait for the end; returns the exit code."""
    kind = place(where).kind
    if kind not in ("local", "hosts"):
        raise WishError(f"{where} is of kind {kind}, which takes runs and lets go", "use `temper submit`")
    made = composed(run, where, verb, words)
    if not unchecked:
        checked(run, made)
    written(made)
    # Who runs it here can be asked and stopped like one who was sent away.
    mine, host = processes.began(os.getpid()), socket.gethostname()
    keep(Submitted(made.number, kind, str(os.getpid()), host, protocol.now(), str(run.folder), mine))
    return _led(made, f"{int(protocol.now())}-{os.getpid()}")


@click.command()
@click.option("--job", "file", type=click.Path(path_type=Path), required=True)
def lead(file: Path) -> None:
    """Start the agents of all nodes and say how it ended. Places run this; people need not."""
    made = submission.read(file)
    os.chdir(made.directory)
    if made.place.kind != "slurm":
        sys.exit(_led(made, f"{int(protocol.now())}-{os.getpid()}"))
    sys.exit(batch.led(made).exit_code)


def _led(made: Submission, name: str) -> int:
    return Lead(made, name).run(STARTERS[made.place.kind](made, name)).exit_code


def _submitted(folder: str) -> Submitted:
    found = newest(Path(folder))
    if found is None:
        raise WishError(f"{folder} holds no submission", "name the run folder of a run that was submitted")
    return found


@click.command()
@click.argument("folder", metavar="RUN")
def status(folder: str) -> None:
    """Tell where a submitted run is: queued, running, or ended and how. RUN is its folder."""
    found = _submitted(folder)
    state = BACKENDS[found.kind].status(found)
    click.echo(f"{state.word}: {state.detail}" if state.detail else state.word)
    step = last_step(Path(folder) / protocol.METRICS)
    if step is not None:
        click.echo(f"last logged step: {step}")
    verdict = reports.newest_verdict(Path(folder), found.seconds)
    if verdict is not None:
        click.echo(verdict.sentence)


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--now", is_flag=True, help="Kill at once instead of stopping at a step border.")
def cancel(folder: str, now: bool) -> None:
    """Stop a submitted run: at the next step border, saved. RUN is its folder."""
    found = _submitted(folder)
    click.echo(BACKENDS[found.kind].cancel(found, now=now))


@click.command()
@click.argument("folder", metavar="RUN")
@click.option("--rank", type=int, default=0, show_default=True, metavar="N", help="Whose output.")
@click.option("--follow", is_flag=True, help="Go on as it is written, until Ctrl-C.")
def logs(folder: str, rank: int, follow: bool) -> None:
    """Print what a rank wrote. RUN is its folder."""
    found = newest(Path(folder))
    if found is not None:
        node = rank // found.submission.launch.processes
        argv = BACKENDS[found.kind].log_command(found, node, follow=follow)
        if argv is not None:
            sys.exit(subprocess.run(argv).returncode)
    file = _log(Path(folder), rank, found)
    with file.open(encoding="utf-8", errors="replace") as log:
        while True:
            text = log.read()
            click.echo(text, nl=False)
            if not text:
                if not follow:
                    return
                time.sleep(0.5)


def _log(folder: Path, rank: int, found: Submitted | None) -> Path:
    """The file that a rank wrote last, whoever started it."""
    kept = folder / protocol.LOGS
    last = attempts.log_folder(folder, attempts.next_number(folder) - 1)
    node, local_rank = divmod(rank, found.submission.launch.processes) if found else (0, rank)
    files = [
        # torchrun's own nesting lasts as long as the ranks do.
        *(kept / f"node-{node}").glob(f"*/attempt_*/{local_rank}/stdout.log"),
        *kept.glob(f"*/attempt_*/{rank}/stdout.log"),
        *(place / f"rank-{rank}.log" for place in (kept, last)),
    ]
    if there := [file for file in files if file.is_file()]:
        return max(there, key=lambda file: file.stat().st_mtime)
    known = sorted(
        {
            int(file.stem.removeprefix("rank-"))
            for place in (kept, last)
            for file in place.glob("rank-*.log")
            if "err" not in file.name
        }
    )
    raise WishError(
        f"{kept} holds nothing of rank {rank}",
        f"ranks there: {known}" if known else "has it started? see `temper status`",
    )
