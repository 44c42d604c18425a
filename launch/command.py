"""From a Run to the exact `accelerate launch ...` line: a frozen plan that is printed and executed from one value."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What will be started. `line` is this value as text; the agent executes this value.

    Attributes:
        verb: what each rank does: `train` or `evaluate`.
        limits: how long silence of ranks is borne.
        restarts: how many times a crashed training is started again.
        strategy: how the ranks share the work, as asserted again by the ranks.
        processes: ranks on this machine.
        environment: variables added to the caller's, in the order they are printed.
        flags: `accelerate launch` and its flags.
        target: what each rank runs, e.g. `-m engine train run.yaml`.
        folder: the run folder.
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

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command."""
        return self.flags + self.target

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
    processes = run.parallel.processes
    # Ranks that only evaluate hold whole models and share nothing but the list of tasks.
    strategy = run.parallel.strategy if verb == "train" else ("ddp" if processes > 1 else "none")
    threads = run.parallel.threads or max(1, len(os.sched_getaffinity(0)) // processes)
    target = ["-m", "engine", verb, run_file]
    for override in overrides:
        target += ["--set", override]
    target += words
    return LaunchPlan(
        verb=verb,
        limits=Limits(run.parallel.hang_seconds, run.parallel.timeout_seconds),
        restarts=run.parallel.restarts if verb == "train" else 0,
        strategy=strategy,
        processes=processes,
        environment=_environment(run, strategy, threads),
        flags=_flags(run, strategy, threads),
        target=tuple(target),
        folder=run.folder,
    )


def _environment(run: Run, strategy: str, threads: int) -> tuple[tuple[str, str], ...]:
    values = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    if strategy in STAGES and run.parallel.device == "cpu":
        values["DS_ACCELERATOR"] = "cpu"
    if strategy != "none":
        values["PET_SIGNALS_TO_HANDLE"] = SIGNALS
        values["PET_SHUTDOWN_TIMEOUT"] = str(GRACE_SECONDS)
    if strategy != "none" and run.parallel.processes > 1:
        # Rank 0 keeps the console; each other rank writes stdout and stderr (3) to files under --log_dir.
        values["PET_REDIRECTS"] = ",".join(f"{rank}:3" for rank in range(1, run.parallel.processes))
    return tuple(values.items())


def _flags(run: Run, strategy: str, threads: int) -> tuple[str, ...]:
    parallel = run.parallel
    precision = "no" if parallel.precision == "fp32" else parallel.precision
    words = ["accelerate", "launch", "--config_file", _short(ACCELERATE_SETTINGS)]
    words += _strategy_flags(run, strategy)
    words += ["--num_machines", "1", "--machine_rank", "0", "--num_processes", str(parallel.processes)]
    words += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port(str(run.folder)))]
    words += ["--mixed_precision", precision, "--dynamo_backend", "no"]
    words += [
        "--num_cpu_threads_per_process",
        str(threads),
        "--max_restarts",
        "0",
        "--monitor_interval",
        "0.2",
    ]
    words += ["--log_dir", str(run.folder / protocol.LOGS)]
    return tuple(words)


def _strategy_flags(run: Run, strategy: str) -> list[str]:
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
    return ["--multi_gpu"] if parallel.processes > 1 else []


def free_port(name: str) -> int:
    """A free port for the ranks of the run folder `name` to meet at: the same one each time while it stays free.

    Raises:
        PreflightError: none of a hundred candidates is free.
    """
    start = int.from_bytes(hashlib.sha256(os.path.abspath(name).encode()).digest()[:4], "big")
    for offset in range(100):
        port = PORTS[(start + offset) % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PreflightError(
        f"no port is free near {PORTS[start % len(PORTS)]} on 127.0.0.1",
        "end the processes that hold them (ss -ltnp)",
    )


def _short(path: Path) -> str:
    """`path` relative to the working directory where it lies below it, as a person would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
