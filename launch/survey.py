"""Asking all nodes of a place at once what a run would find there, and telling everything that is amiss."""

from __future__ import annotations

import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from engine import errors, protocol
from engine.config import Run
from engine.errors import PreflightError, WishError
from launch.architecture import architecture
from launch.backends import hosts, local, slurm
from launch.cluster import Hosts, Local, Slurm
from launch.command import LOOPBACK, PORTS, is_free, shared_plan
from launch.inspection import ANSWER, ASK, MARK, Answer, Ask, Wanted
from launch.lead import Start
from launch.outlook import everywhere, outlook
from launch.preflight import Finding, Survey, findings, may_meet
from launch.submission import HERE

# Together below half a minute, should every one of them be needed.
LOOK_SECONDS = 14.0
FILE_SECONDS = 2.0
MEET_SECONDS = 12.0
END_SECONDS = 1.0
TIMES = 5
# A checkpoint's files: some for all, some for each rank.
FILES, FILES_A_RANK = 64, 8
KEPT_TEXT = 4000

# Places whose nodes can be looked at before they have a run.
Reached = Local | Hosts | Slurm


def passed(asked: Wanted, where: Reached) -> None:
    """Survey the nodes and return if nothing is amiss; else tell all that is and exit with 3."""
    if told(asked, where):
        sys.exit(errors.PREFLIGHT_FAILED)


def told(asked: Wanted, where: Reached, *, inside: bool = False) -> tuple[Finding, ...]:
    """Survey the nodes and tell all that is amiss, or that nothing is; returns what is.

    Args:
        asked: what is needed of the nodes.
        where: the nodes.
        inside: whether this is a SLURM job that has them already.
    """
    began = time.monotonic()
    seen = survey(asked, where, inside=inside)
    found = findings(asked, seen)
    for one in found:
        click.echo(errors.spoken(one), err=True)
    seconds = f"checked in {time.monotonic() - began:.1f} s"
    if found:
        click.echo(errors.spoken(f"{len(found)} to mend; {seconds}"), err=True)
    else:
        click.echo(f"{', '.join(_told(asked, seen))}; {seconds}", err=True)
    return found


def _told(asked: Wanted, seen: Survey) -> Iterator[str]:
    yield f"{asked.nodes} node{'s' * (asked.nodes > 1)} ready"
    facts = seen.facts[0]
    yield f"torch {facts.versions['torch']}"
    if facts.cards:
        yield f"{len(facts.cards)} x {facts.cards[0].name} a node, driver {facts.cards[0].driver}"
    met = seen.met[0]
    ranks = asked.nodes * asked.ranks
    yield f"{ranks} rank{'s' * (ranks > 1)} met over {met.backend} in {met.seconds:.1f} s"
    if met.bytes_per_second:
        yield f"all-reduce {met.bytes_per_second / 1e9:.2f} GB/s"
    needs = f", {asked.disk_bytes / 2**30:.1f} needed" if asked.disk_bytes else ""
    yield f"{seen.folder} has {seen.rooms[0].free_bytes / 2**30:.0f} GiB free{needs}"


def bare(where: Reached) -> Wanted:
    """What any run needs of a place, in the working folder."""
    directory = str(getattr(where, "folder", None) or Path.cwd())
    port = next((port for port in PORTS if is_free(LOOPBACK, port)), PORTS.start)
    return Wanted(
        folder=directory,
        directory=directory,
        head=_head(where),
        port=port,
        nodes=where.size,
        ranks=max(1, where.gpus_per_node),
        device="cuda" if where.gpus_per_node else "cpu",
        gpus=where.gpus_per_node,
        gpu_memory_gib=_memory(where),
        environment=_values(where),
    )


def wanted(run: Run, where: Reached, verb: str) -> Wanted:
    """What a run needs of a place."""
    directory = str(getattr(where, "folder", None) or Path.cwd())
    launch = shared_plan(run, verb, protocol.RUN, nodes=where.size, code=HERE)
    device = "cpu" if run.parallel.device == "cpu" or not where.gpus_per_node else "cuda"
    size = 0
    if verb == "train" and run.data is not None:
        # A model that is not known here has a size that is not known either: it is the nodes that must read it.
        with suppress(WishError):
            size = outlook(everywhere(run, where.size), launch, architecture(run), None).disk_bytes
            # What an earlier attempt has left makes room for what replaces it.
            size = max(0, size - _kept_bytes(run.folder / protocol.CHECKPOINTS))
    kept = run.checkpoint.keep_last + run.checkpoint.keep_best + 1
    judged = verb == "evaluate" or bool(run.train.evaluate_every)
    sources = (*run.data.train, *run.data.validation) if run.data is not None and verb == "train" else ()
    return Wanted(
        folder=str(run.folder),
        directory=directory,
        head=_head(where),
        port=launch.port,
        nodes=where.size,
        # On CPU the network is what is rehearsed; a GPU meets all others.
        ranks=run.parallel.processes if device == "cuda" else 1,
        device="cuda" if device == "cuda" else "cpu",
        gpus=where.gpus_per_node if device == "cuda" else 0,
        gpu_memory_gib=_memory(where) if device == "cuda" else 0.0,
        disk_bytes=size,
        inodes=kept * (FILES + FILES_A_RANK * launch.world_size) if verb == "train" else FILES,
        level=(run.sandbox.level or "any") if judged else "",
        models=() if run.evaluate.server.url and verb == "evaluate" else _models(run),
        files=tuple(source.path for source in sources if Path(source.path).is_file()),
        environment=_values(where),
    )


def _kept_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _models(run: Run) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (run.model.path, run.model.tokenizer) if name))


def _head(where: Reached) -> str:
    if isinstance(where, Hosts):
        return where.hosts[0]
    return LOOPBACK if isinstance(where, Local) else ""


def _starts(where: Reached, directory: str, *, inside: bool) -> tuple[Start, ...]:
    if isinstance(where, Hosts):
        return hosts.inspections(where, directory)
    if isinstance(where, Slurm):
        return slurm.inspections_inside(where) if inside else slurm.inspections(where, directory)
    return local.inspections(where, directory)


def _memory(where: Reached) -> float:
    hardware = where.hardware("--on")
    return hardware.gpu.memory_gib if hardware is not None else 0.0


def _values(where: Reached) -> dict[str, str]:
    return {name: os.environ[name] for name in where.environment if name in os.environ}


def survey(asked: Wanted, where: Reached, *, inside: bool = False) -> Survey:
    """Ask all nodes, step by step, and bring home whatever was answered in time."""
    starts = _starts(where, asked.directory, inside=inside)
    patience = LOOK_SECONDS + (slurm.GRANT_SECONDS if isinstance(where, Slurm) and not inside else 0)
    with Nodes(starts) as nodes:
        facts = {
            node: one.facts
            for node, one in nodes.ask(Ask("look", wanted=asked), patience).items()
            if one.facts is not None
        }
        names = tuple(
            where.host(node) if isinstance(where, Hosts) or node not in facts else facts[node].host
            for node in range(where.size)
        )
        silent = {node: nodes.last_words(node) for node in range(where.size) if node not in facts}
        found = Survey(names, facts, silent)
        if not facts:
            return found
        folder = max((one.parent for one in facts.values()), key=len)
        token = secrets.token_hex(8)
        there = {node for node, one in facts.items() if one.parent == folder}
        rooms = {
            node: one.room
            for node, one in nodes.ask(Ask("write", path=folder, token=token), FILE_SECONDS, there).items()
            if one.room is not None
        }
        read_back = nodes.ask(Ask("read", path=folder, token=token), FILE_SECONDS, set(rooms))
        found = Survey(
            names,
            facts,
            silent,
            folder,
            rooms,
            {node: one.seen for node, one in read_back.items()},
            nodes.skew(),
        )
        if not may_meet(found):
            return found
        ask = Ask("meet", address=facts[0].head, seconds=MEET_SECONDS)
        met = {node: one.met for node, one in nodes.ask(ask, MEET_SECONDS + 1).items() if one.met is not None}
        return Survey(names, facts, silent, folder, rooms, found.seen, found.skew, met)


class Nodes:
    """The nodes' inspections at work, each behind the command that starts it; as a context: they end with it."""

    def __init__(self, starts: Sequence[Start]) -> None:
        self.starts = starts
        self.children: list[subprocess.Popen[str]] = []
        self.answers: queue.Queue[tuple[float, Answer | Start]] = queue.Queue()
        self.said: dict[Start, str] = {}
        self.ended: set[int] = set()

    def __enter__(self) -> Nodes:
        for start in self.starts:
            try:
                child = subprocess.Popen(
                    start.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True, errors="replace", start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                self.__exit__()
                raise PreflightError(
                    f"{start.argv[0]} cannot be started here: {error.strerror}",
                    "install it, or mend the cluster file",
                ) from None
            self.children.append(child)
            for reader in (self._hear, self._overhear):
                threading.Thread(target=reader, args=(start, child), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        # The end of its questions lets a node remove its file.
        for child in self.children:
            with suppress(OSError):
                assert child.stdin is not None
                child.stdin.close()
        for child in self.children:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=END_SECONDS)
                    break
                # A session of its own: whatever the command has started ends with it.
                os.killpg(child.pid, number)
            child.wait()

    def ask(self, ask: Ask, seconds: float, whom: set[int] | None = None) -> dict[int, Answer]:
        """The answers that come in time, by node."""
        return {node: answer for node, (answer, _, _) in self._timed(ask, seconds, whom).items()}

    def skew(self) -> dict[int, tuple[float, float]]:
        """How far each clock is ahead of this machine's, from the quickest of a few answers; and half its way."""
        best: dict[int, tuple[float, float]] = {}
        for _ in range(TIMES):
            for node, (answer, sent, heard) in self._timed(Ask("time"), FILE_SECONDS / TIMES).items():
                half = (heard - sent) / 2
                if node not in best or half < best[node][1]:
                    best[node] = (answer.seconds - sent - half, half)
        return best

    def last_words(self, node: int) -> str:
        """What the command of a node that did not answer wrote last."""
        start, child = next(
            one for one in zip(self.starts, self.children, strict=True) if node in one[0].nodes
        )
        lines = self.said.get(start, "").strip().splitlines()
        if lines:
            return lines[-1].strip()
        code = child.poll()
        return "no word in time" if code is None else f"it ended with code {code}"

    def _timed(
        self, ask: Ask, seconds: float, whom: set[int] | None = None
    ) -> dict[int, tuple[Answer, float, float]]:
        everyone = {node for start in self.starts for node in start.nodes}
        asked = (everyone if whom is None else whom) - self.ended
        sent: dict[int, float] = {}
        for start, child in zip(self.starts, self.children, strict=True):
            if asked & set(start.nodes):
                assert child.stdin is not None
                sent |= dict.fromkeys(start.nodes, protocol.now())
                with suppress(OSError):
                    child.stdin.write(ASK.dump_json(ask).decode() + "\n")
                    child.stdin.flush()
        found: dict[int, tuple[Answer, float, float]] = {}
        deadline = time.monotonic() + seconds
        while asked - found.keys() - self.ended and (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                heard, answer = self.answers.get(timeout=left)
                if isinstance(answer, Start):
                    self.ended |= set(answer.nodes)
                elif answer.step == ask.step and answer.node in asked:
                    found[answer.node] = (answer, sent[answer.node], heard)
        return found

    def _hear(self, start: Start, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        parts: dict[str, str] = {}
        for line in child.stdout:
            # A login may greet before it obeys.
            mark, _, rest = line.rstrip("\n").partition(" ")
            if mark != MARK:
                continue
            node, more, text = rest.split(" ", 2)
            parts[node] = parts.get(node, "") + text
            if more == "last":
                self.answers.put((protocol.now(), ANSWER.validate_json(parts.pop(node))))
        self.answers.put((protocol.now(), start))

    def _overhear(self, start: Start, child: subprocess.Popen[str]) -> None:
        assert child.stderr is not None
        for line in child.stderr:
            self.said[start] = (self.said.get(start, "") + line)[-KEPT_TEXT:]
