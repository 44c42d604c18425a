"""What one node looks at before a run: it answers, line by line, the questions that `launch.survey` asks all nodes."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import click
from pydantic import TypeAdapter

from engine import hub, protocol
from engine.errors import PreflightError
from launch.backends import slurm
from launch.command import is_free
from launch.node import NODE_VARIABLES, interface_to, resolve

PACKAGES = ("temper-llm", "torch", "accelerate", "deepspeed", "transformers", "bitsandbytes")
# One of them is in every folder or repository of a model or a tokenizer.
MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
PROBE_SECONDS = 10.0
RESOLVE_SECONDS = 3.0
# slurmstepd hands on at most 1024 bytes at a time.
PIECE = 700
MARK = "temper-inspection"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run needs of every node.

    Attributes:
        folder: the run folder; its nearest parent that exists is looked at, and nothing is made.
        directory: working folder on the nodes.
        head: address of node 0; empty: the nodes ask SLURM.
        port: where the ranks meet.
        nodes: machines.
        ranks: ranks of each machine in the rehearsal.
        device: `cpu` or `cuda`.
        gpus: GPUs that each node should have.
        gpu_memory_gib: memory that each GPU should have; 0: not asked.
        disk_bytes: room for checkpoints and exported weights; 0: not known.
        inodes: files that the run may leave.
        level: least isolation of programs, `any` for the best there is; empty: the run does not evaluate.
        models: folders or hub ids that the ranks load.
        files: data files that the ranks read.
        environment: variables that are handed on.
    """

    folder: str
    directory: str
    head: str
    port: int
    nodes: int
    ranks: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    gpus: int = 0
    gpu_memory_gib: float = 0.0
    disk_bytes: int = 0
    inodes: int = 0
    level: str = ""
    models: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, as nvidia-smi names it."""

    name: str
    memory_mib: int
    driver: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What one node is and has.

    Attributes:
        node: its number.
        host: its name.
        address: its own address on the way to the head; empty: there is no way.
        interface: the network interface of that address.
        head: the head's address as it is known here; empty: unknown.
        port: why the ranks cannot meet here, asked of node 0 alone.
        versions: of Python and the packages a rank stands on; empty: not installed.
        cards: its GPUs.
        smi: why nvidia-smi tells none.
        shared_memory: bytes free in /dev/shm.
        open_files: how many a process may have.
        directory: whether the working folder is there.
        parent: the nearest folder that exists on the way to the run folder.
        level: best isolation of programs, where it was asked.
        problems: why models and files cannot be read, by their names.
    """

    node: int
    host: str
    address: str = ""
    interface: str = ""
    head: str = ""
    port: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    cards: tuple[Card, ...] = ()
    smi: str = ""
    shared_memory: int = 0
    open_files: int = 0
    directory: bool = True
    parent: str = "/"
    level: str = ""
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Room:
    """A folder as one node finds it; `problem` is why it cannot be written."""

    problem: str = ""
    free_bytes: int = 0
    free_inodes: int = 0


@dataclass(frozen=True, slots=True)
class Met:
    """How the rehearsal went, as a node's first rank tells it (`engine.rehearse.Meeting`)."""

    backend: str
    seconds: float = 0.0
    bytes_per_second: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to all nodes; each answers with one `Answer` of the same step."""

    step: Literal["look", "time", "write", "read", "meet"]
    wanted: Wanted | None = None
    path: str = ""
    token: str = ""
    address: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node says to a question; only the field of its step is set."""

    node: int
    step: str
    facts: Facts | None = None
    seconds: float = 0.0
    room: Room | None = None
    seen: tuple[int, ...] = ()
    met: Met | None = None


ASK, ANSWER = TypeAdapter(Ask), TypeAdapter(Answer)


@click.command()
@click.option("--node", "number", type=int, help="Which node this is; empty: as SLURM says.")
def inspect(number: int | None) -> None:
    """Answer questions from standard input. `temper check` starts this; people need not."""
    node = int(os.environ[NODE_VARIABLES["slurm"]]) if number is None else number
    wanted: Wanted | None = None
    mark: Path | None = None
    try:
        for line in sys.stdin:
            ask = ASK.validate_json(line)
            wanted = ask.wanted or wanted
            assert wanted is not None, "the first question tells what is wanted"
            if ask.step == "look":
                os.environ.update(wanted.environment)
                answer = Answer(node, ask.step, facts=look(node, wanted))
            elif ask.step == "time":
                answer = Answer(node, ask.step, seconds=protocol.now())
            elif ask.step == "write":
                mark = Path(ask.path) / f".temper-check-{ask.token}-{node}"
                answer = Answer(node, ask.step, room=_write(mark))
            elif ask.step == "read":
                answer = Answer(node, ask.step, seen=_seen(Path(ask.path), ask.token, wanted.nodes))
            else:
                answer = Answer(node, ask.step, met=_meet(node, wanted, ask))
            for line in pieces(answer):
                print(line, flush=True)
    finally:
        if mark is not None:
            with suppress(OSError):
                mark.unlink()


def pieces(answer: Answer) -> Iterator[str]:
    """An answer as short lines, each with its node and whether more follow: srun mixes longer ones of several nodes."""
    text = ANSWER.dump_json(answer).decode()
    for start in range(0, len(text), PIECE):
        yield f"{MARK} {answer.node} {'more' if start + PIECE < len(text) else 'last'} {text[start : start + PIECE]}"


def look(node: int, wanted: Wanted) -> Facts:
    """All that this node can find out alone."""
    probe = _probe() if wanted.level else None
    head, port = "", ""
    with suppress(PreflightError):
        head = resolve(wanted.head or slurm.head(), RESOLVE_SECONDS)
    if node == 0 and head:
        port = _port(head, wanted.port)
    cards, smi = _cards() if wanted.gpus else ((), "")
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage("/dev/shm").free
    problems = {model: why for model in wanted.models if (why := _model(model))}
    problems |= {file: "there is no such file" for file in wanted.files if not Path(file).is_file()}
    return Facts(
        node=node,
        host=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        address=_own(head),
        interface=(interface_to(head) or "") if head else "",
        head=head,
        port=port,
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        cards=cards,
        smi=smi,
        shared_memory=free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        directory=Path(wanted.directory).is_dir(),
        parent=str(_parent(Path(wanted.directory, wanted.folder))),
        level=_level(probe) if probe is not None else "",
        problems=problems,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _own(head: str) -> str:
    """The address that packets to the head leave with."""
    family = socket.AF_INET6 if ":" in head else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((head, 9))
        return str(probe.getsockname()[0])
    return ""


def _port(address: str, port: int) -> str:
    if not is_free(address, 0):
        return f"{address} is not an address of this machine"
    return "" if is_free(address, port) else f"port {port} of {address} is taken"


def _cards() -> tuple[tuple[Card, ...], str]:
    words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi: {getattr(error, 'strerror', None) or 'no answer'}"
    if done.returncode:
        return (), f"nvidia-smi: {' '.join((done.stderr or done.stdout).split())}"
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    # A card in MIG mode may say [N/A] of its memory.
    return tuple(Card(row[0], int(row[1]) if row[1].isdigit() else 0, row[2]) for row in rows), ""


def _parent(folder: Path) -> Path:
    """The nearest folder that exists."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))


def _model(place: str) -> str:
    """Why a model cannot be read here; empty where it can."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        held = any((folder / name).is_file() for name in MODEL_FILES)
        return "" if held else f"the folder holds none of {', '.join(MODEL_FILES)}"
    if folder.is_absolute() or place.count("/") > 1 or place.startswith("."):
        return "there is no such folder"
    if not (silence := hub.silence()):
        return ""
    from huggingface_hub import try_to_load_from_cache

    cached = any(isinstance(try_to_load_from_cache(place, name), str) for name in MODEL_FILES)
    return "" if cached else f"{silence}; the cache does not hold it, and there is no such folder"


def _probe() -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "engine", "sandbox", "probe", "--json"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _level(probe: subprocess.Popen[str]) -> str:
    try:
        out, _ = probe.communicate(timeout=PROBE_SECONDS)
        return str(json.loads(out)["level"] or "none")
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        probe.kill()
        probe.wait()
        return "none"


def _write(mark: Path) -> Room:
    try:
        mark.write_bytes(b"\0" * 4096)
        space = os.statvfs(mark.parent)
    except OSError as error:
        with suppress(OSError):
            mark.unlink()
        return Room(problem=error.strerror or str(error))
    # File systems without a table of inodes (btrfs, some network disks) say 0 of 0.
    inodes = space.f_favail if space.f_files else sys.maxsize
    return Room("", space.f_bavail * space.f_frsize, inodes)


def _seen(folder: Path, token: str, nodes: int) -> tuple[int, ...]:
    # Listing first: it makes a network disk look again.
    with suppress(OSError):
        os.listdir(folder)
    return tuple(node for node in range(nodes) if (folder / f".temper-check-{token}-{node}").is_file())


def _meet(node: int, wanted: Wanted, ask: Ask) -> Met:
    """Start this node's ranks of the rehearsal, and end those that do not end by themselves."""
    environment = dict(os.environ)
    if wanted.nodes > 1 and "GLOO_SOCKET_IFNAME" not in environment:
        if interface := interface_to(ask.address):
            environment["GLOO_SOCKET_IFNAME"] = interface
    backend = "nccl" if wanted.device == "cuda" else "gloo"
    deadline = time.monotonic() + ask.seconds
    ranks: list[subprocess.Popen[str]] = []
    try:
        for local_rank in range(wanted.ranks):
            words = [
                "--address",
                ask.address,
                "--port",
                wanted.port,
                "--rank",
                node * wanted.ranks + local_rank,
            ]
            words += ["--local-rank", local_rank, "--ranks", wanted.nodes * wanted.ranks]
            # A rank that gives up by itself says why.
            words += ["--device", wanted.device, "--seconds", max(1.0, ask.seconds / 2)]
            argv = [sys.executable, "-m", "engine.rehearse", *map(str, words)]
            ranks.append(
                subprocess.Popen(
                    argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        found = [_told(rank, backend, max(0.1, deadline - time.monotonic())) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return next((one for one in found if one.problem), found[0])


def _told(rank: subprocess.Popen[str], backend: str, seconds: float) -> Met:
    try:
        out, err = rank.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return Met(backend, problem="no end within the limit")
    for line in reversed(out.splitlines()):
        with suppress(ValueError):
            return TypeAdapter(Met).validate_json(line)
    last = (err.strip().splitlines() or [f"it ended with code {rank.returncode}"])[-1]
    return Met(backend, problem=last)
