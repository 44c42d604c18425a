"""A rank with real collectives over gloo that goes wrong where it is told to.

Usage: rank.py FOLDER FAULT RANK STEP PHASE LAUNCHER_PID_FILE, started by a launcher (RANK, WORLD_SIZE ... are set).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from engine import protocol
from engine.cli import _Attempt
from engine.config import Run
from engine.heartbeat import Where

LAST_STEP = 12
STEP_SECONDS = 0.05
MEMORY_LIMIT = 64 * 2**20
FOLDER, FAULT = Path(sys.argv[1]), sys.argv[2]
FAULTY, STEP, PHASE = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
LAUNCHER = Path(sys.argv[6])
RANK = int(os.environ["RANK"])


def go_wrong() -> None:
    """Do what was asked, after noting when."""
    LAUNCHER.with_name("began").write_text(str(time.monotonic()))
    if FAULT == "exception":
        raise ValueError("this rank was asked to go wrong")
    if FAULT == "out-of-memory":
        fill_memory()
    if FAULT == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if FAULT == "sleep":
        time.sleep(3600)
    if FAULT in ("exit-0", "exit-1"):
        os._exit(int(FAULT[-1]))
    if FAULT == "disk-full":
        fill_disk()
    if FAULT == "launcher-killed":
        os.kill(int(LAUNCHER.read_text()), signal.SIGKILL)
        time.sleep(3600)


def fill_memory() -> None:
    """Ask for more than a control group of its own allows: the kernel kills this process."""
    group = Path(os.environ["FAULTY_CGROUP"])
    limit = "memory.limit_in_bytes" if (group / "memory.limit_in_bytes").exists() else "memory.max"
    (group / limit).write_text(str(MEMORY_LIMIT))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    bytearray(b"x") * (8 * MEMORY_LIMIT)


def fill_disk() -> None:
    """Write to the run folder until there is no room."""
    with (FOLDER / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))


def at(where: Where, phase: str, step: int) -> None:
    """Come to a phase."""
    where.at(phase, step)
    if (RANK, step, phase) == (FAULTY, STEP, PHASE):
        go_wrong()


def work(where: Where) -> None:
    """Steps as a training has them, with a collective where a training has one."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    numbers = torch.ones(256)
    for step in range(1, LAST_STEP + 1):
        at(where, "data", step)
        at(where, "agree", step)
        dist.all_reduce(torch.ones(3))
        at(where, "forward", step)
        gradient = (numbers * step).sin()
        time.sleep(STEP_SECONDS)
        at(where, "backward", step)
        dist.all_reduce(gradient)
        at(where, "optimizer", step)
        at(where, "log", step)
        if RANK == 0:
            with (FOLDER / protocol.METRICS).open("a") as file:
                file.write(json.dumps({"step": step}) + "\n")
        if step % 3 == 0:
            at(where, "save", step)
            (FOLDER / f"state-{RANK}").write_bytes(gradient.numpy().tobytes())
            dist.barrier()
    if RANK == 0:
        protocol.write_outcome(FOLDER, protocol.Outcome("finished", LAST_STEP, 1.0))


if __name__ == "__main__":
    with _Attempt(Run.model_validate({"output": str(FOLDER), "model": {"path": "none"}})) as attempt:
        work(attempt.where)
