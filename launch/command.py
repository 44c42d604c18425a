"""From a Run to the exact `accelerate launch ...` line: a frozen plan that is printed and executed from one value."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import protocol
from engine.config import STAGES, Run
from engine.errors import PreflightError
from launch.hang import Limits

# torchrun would otherwise die of SIGUSR1 and orphan its ranks, and kill ranks 30 s after SIGTERM, mid-save.
SIGNALS = "SIGTERM,SIGINT,SIGUSR1"
GRACE_SECONDS = 300

ACCELERATE_SETTINGS = Path(__file__).with_name("accelerate.yaml")
PORTS = range(20000, 30000)
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What will be started. `line` is this value as text; the agent executes this value.

    Attributes:
        verb: what each rank does: `train` or `evaluate`.
        limits: how long silence of ranks is borne.
        restarts: how many times a crashed training is started again.
        strategy: how the ranks share the work, as asserted again by the ranks.
        processes: ranks on each machine.
        environment: variables added to the caller's, in the order they are printed.
        flags: `accelerate launch` and those of its flags that are the same on every machine.
        target: what each rank runs, e.g. `-m engine train run.yaml`.
        folder: the run folder.
        port: where the ranks meet, on the head.
        threads: CPU threads a rank may use; 0: each machine divides its own cores.
        nodes: machines.
        node: this machine's number among them.
        head: address of machine 0, as the others reach it.
    """

    verb: str
    limits: Limits
    restarts: int
    strategy: str
    processes: int
    environment: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    target: tuple[str, ...]
    folder: Path
    port: int
    threads: int
    nodes: int = 1
    node: int = 0
    head: str = LOOPBACK

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.processes

    @property
    def first_rank(self) -> int:
        """The number of this machine's first rank among all ranks."""
        return self.node * self.processes

    @property
    def meeting(self) -> tuple[str, ...]:
        """The flags that differ from machine to machine."""
        words = [
            "--num_machines",
            self.nodes,
            "--machine_rank",
            self.node,
            "--num_processes",
            self.world_size,
        ]
        words += ["--main_process_ip", self.head, "--main_process_port", self.port]
        words += ["--rdzv_backend", "static"] if self.nodes > 1 else []
        words += ["--num_cpu_threads_per_process", self.threads, "--log_dir", self.rank_logs]
        return tuple(map(str, words))

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command."""
        return self.flags + self.meeting + self.target

    def at(self, node: int, head: str) -> LaunchPlan:
        """The same plan as machine `node` carries it out, which is the one this is called on."""
        threads = self.threads or _threads(self.processes)
        environment = (("OMP_NUM_THREADS", str(threads)), *self.environment)
        return replace(self, node=node, head=head, threads=threads, environment=environment)

    @property
    def line(self) -> str:
        """The command as a person would type it, environment first."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        return " ".join(assignments + [shlex.quote(word) for word in self.argv])

    @property
    def script(self) -> str:
        """The same command as a shell script, to be started in the same folder."""
        return (
            f"#!/usr/bin/env bash\nset -euo pipefail\ncd {shlex.quote(os.getcwd())}\nexec env {self.line}\n"
        )

    @property
    def logs(self) -> Path:
        """Where ranks' output goes."""
        return self.folder / protocol.LOGS

    @property
    def rank_logs(self) -> Path:
        """Where torchrun puts its files: it numbers ranks anew on each machine, so several have one folder each."""
        return self.logs / f"node-{self.node}" if self.nodes > 1 else self.logs


def plan(
    run: Run, verb: str, run_file: str, overrides: Sequence[str] = (), words: Sequence[str] = ()
) -> LaunchPlan:
    """The plan for `verb` of a Run on this machine.

    Args:
        run: the effective Run (overrides applied).
        verb: `train` or `evaluate`.
        run_file: its file, as the ranks will read it.
        overrides: `--set` texts, handed on to the ranks.
        words: further options of the verb, handed on to the ranks.

    Raises:
        PreflightError: no port is free for the ranks to meet at.
    """
    threads = run.parallel.threads or _threads(run.parallel.processes)
    launch = _plan(
        run, verb, (run_file, *_set(overrides), *words), nodes=1, settings=_short(ACCELERATE_SETTINGS)
    )
    return replace(
        launch,
        environment=(("OMP_NUM_THREADS", str(threads)), *launch.environment),
        threads=threads,
        port=free_port(str(run.folder)),
    )


def shared_plan(
    run: Run, verb: str, run_file: str, words: Sequence[str] = (), *, nodes: int, code: Path
) -> LaunchPlan:
    """The plan for `verb` of a Run on `nodes` machines, each of which completes it by `at`.

    Args:
        run: the effective Run.
        verb: `train` or `evaluate`.
        run_file: the effective Run's file, as the ranks of every machine will read it.
        words: further options of the verb, handed on to the ranks.
        nodes: machines, each with `parallel.processes` ranks.
        code: folder that holds this package as the machines will see it.
    """
    settings = code / ACCELERATE_SETTINGS.parent.name / ACCELERATE_SETTINGS.name
    return _plan(run, verb, (run_file, *words), nodes=nodes, settings=str(settings))


def _plan(run: Run, verb: str, words: Sequence[str], *, nodes: int, settings: str) -> LaunchPlan:
    world_size = nodes * run.parallel.processes
    # Ranks that only evaluate hold whole models and share nothing but the list of tasks.
    strategy = run.parallel.strategy if verb == "train" else ("ddp" if world_size > 1 else "none")
    return LaunchPlan(
        verb=verb,
        limits=Limits(run.parallel.hang_seconds, run.parallel.timeout_seconds),
        restarts=run.parallel.restarts if verb == "train" else 0,
        strategy=strategy,
        processes=run.parallel.processes,
        environment=_environment(run, strategy),
        flags=_flags(run, strategy, settings, world_size),
        target=("-m", "engine", verb, *words),
        folder=run.folder,
        port=_ports(str(run.folder))[0],
        threads=run.parallel.threads,
        nodes=nodes,
    )


def _set(overrides: Sequence[str]) -> Iterator[str]:
    for override in overrides:
        yield from ("--set", override)


def _threads(processes: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // processes)


def _environment(run: Run, strategy: str) -> tuple[tuple[str, str], ...]:
    values = {"PYTHONUNBUFFERED": "1"}
    if strategy in STAGES and run.parallel.device == "cpu":
        values["DS_ACCELERATOR"] = "cpu"
    if strategy != "none":
        values["PET_SIGNALS_TO_HANDLE"] = SIGNALS
        values["PET_SHUTDOWN_TIMEOUT"] = str(GRACE_SECONDS)
    if strategy != "none" and run.parallel.processes > 1:
        # Rank 0 keeps the console; each other rank writes stdout and stderr (3) to files under --log_dir.
        values["PET_REDIRECTS"] = ",".join(f"{rank}:3" for rank in range(1, run.parallel.processes))
    return tuple(values.items())


def _flags(run: Run, strategy: str, settings: str, world_size: int) -> tuple[str, ...]:
    precision = "no" if run.parallel.precision == "fp32" else run.parallel.precision
    words = ["accelerate", "launch", "--config_file", settings]
    words += _strategy_flags(run, strategy, world_size)
    words += ["--mixed_precision", precision, "--dynamo_backend", "no"]
    words += ["--max_restarts", "0", "--monitor_interval", "0.2"]
    return tuple(words)


def _strategy_flags(run: Run, strategy: str, world_size: int) -> list[str]:
    parallel = run.parallel
    if strategy in STAGES:
        return [
            "--use_deepspeed",
            "--zero_stage",
            str(STAGES[strategy]),
            "--offload_optimizer_device",
            "cpu" if parallel.offload_optimizer else "none",
            "--offload_param_device",
            "cpu" if parallel.offload_parameters else "none",
            "--zero3_init_flag",
            "true" if strategy == "zero3" else "false",
            "--zero3_save_16bit_model",
            "true" if strategy == "zero3" else "false",
            "--deepspeed_multinode_launcher",
            "standard",
        ]
    # accelerate refuses --multi_gpu for one process; without it, more than one CPU rank would silently become one.
    return ["--multi_gpu"] if world_size > 1 else []


def free_port(name: str) -> int:
    """A free port for the ranks of the run folder `name` to meet at: the same one each time while it stays free.

    Raises:
        PreflightError: none of a hundred candidates is free.
    """
    candidates = _ports(name)
    for port in candidates:
        if is_free(LOOPBACK, port):
            return port
    raise PreflightError(
        f"no port is free near {candidates[0]} on {LOOPBACK}", "end the processes that hold them (ss -ltnp)"
    )


def _ports(name: str) -> list[int]:
    start = int.from_bytes(hashlib.sha256(os.path.abspath(name).encode()).digest()[:4], "big")
    return [PORTS[(start + offset) % len(PORTS)] for offset in range(100)]


def is_free(address: str, port: int) -> bool:
    """Whether this machine may listen on a port of one of its addresses."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _short(path: Path) -> str:
    """`path` relative to the working directory where it lies below it, as a person would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
