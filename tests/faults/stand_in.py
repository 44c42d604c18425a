"""A rank without torch: keeps step with its peers through files, and goes wrong on request.

Usage: stand_in.py FOLDER MODE, where MODE is what one rank (or all) will do. Reads RANK and WORLD_SIZE like any rank.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from engine import protocol
from engine.protocol import Crash, Outcome

RANK = int(os.environ.get("RANK", "0"))
SIZE = int(os.environ.get("WORLD_SIZE", "1"))
FOLDER, MODE = Path(sys.argv[1]), sys.argv[2]
STEP_SECONDS = 0.1
asked = False


def ask(number: int, frame: object) -> None:
    global asked
    asked = True


def crash(error: str, message: str, exit_code: int = 1, step: int | None = None) -> None:
    protocol.write_crash(
        FOLDER,
        Crash(
            RANK, os.uname().nodename, os.getpid(), "forward", step, error, message, exit_code, protocol.now()
        ),
    )
    print(f"temper: {message}", file=sys.stderr, flush=True)
    sys.exit(exit_code)


def together(step: int) -> bool:
    """Come to a step border with every other rank; return whether any of them was asked to stop, as real ranks agree.

    One mark a step, so that a faster peer cannot overwrite what a slower one has still to read.
    """
    mark = FOLDER / f"at-{RANK}-{step}"
    mark.with_suffix(".part").write_text("asked" if asked else "free")
    mark.with_suffix(".part").rename(mark)
    marks = [FOLDER / f"at-{rank}-{step}" for rank in range(SIZE)]
    until = time.monotonic() + (1.0 if step > 1 else 20.0)
    while not all(mark.exists() for mark in marks):
        if time.monotonic() > until:  # gloo notices a peer that left, and so does this
            crash("RuntimeError", "Connection closed by peer [127.0.0.1]:1234", step=step)
        time.sleep(0.01)
    return any(mark.read_text() == "asked" for mark in marks)


def misbehave(step: int) -> None:
    faulty = RANK == SIZE - 1
    if MODE == "wish":
        crash("WishError", "global batch 7 is not divisible by 2 ranks: use 6 or 8", exit_code=2)
    if not faulty or step != 3:
        return
    if MODE == "raise":
        crash("ValueError", "loss is not a number", step=step)
    if MODE == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if MODE == "exit0":
        os._exit(0)


def main() -> None:
    if MODE != "deaf":
        signal.signal(signal.SIGTERM, ask)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:  # a worker process of the rank, such as a loader's
        time.sleep(300)
        os._exit(0)
    for step in range(1, 6 if MODE == "well" else 1000):
        misbehave(step)
        stop = together(step)
        if RANK == 0:
            print(f"step {step}", flush=True)
            with (FOLDER / protocol.METRICS).open("a") as file:
                file.write(json.dumps({"step": step, "loss": 1.0}) + "\n")
        if stop and MODE == "well-asked":
            if RANK == 0:
                protocol.write_outcome(FOLDER, Outcome("preempted", step, 1.0, "checkpoints/step-000003"))
            sys.exit(75)
        time.sleep(STEP_SECONDS)
    if RANK == 0:
        protocol.write_outcome(FOLDER, Outcome("finished", 5, 1.0))
    print("error output of a rank that is fine", file=sys.stderr, flush=True)
    os._exit(0)


main()
