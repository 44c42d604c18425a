"""What a second boundary costs: the same programs in the sandbox's own jail, in podman's containers and in gVisor's.

    python benchmarks/sandbox_engines.py

Rounds take turns, so that a busy machine is busy for all; prints the medians. An engine that is not to be had is named
with the reason.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

from engine.errors import WishError
from engine.sandbox import Limits, Pool, Program
from engine.sandbox.outer.engines import ENGINES, version_of

PROGRAM = Program(
    "def f(x): return x + 1",
    entry_point="f",
    test="def check(c):\n    assert c(1) == 2\n    assert c(5) == 6",
)
LOOPS = Program("n = 0\nfor i in range(3_000_000): n += i")
FORKS = Program(
    "import os\nfor _ in range(20):\n    if not os.fork(): os._exit(0)\n    os.wait()\nassert True"
)
LIMITS = Limits(cpu_seconds=10, wall_seconds=30)
COUNTS = {None: 400, "podman": 30, "runsc": 12}


def measure(engine: str | None, workers: int) -> tuple[float, float, float, float]:
    """Seconds to open; programs/s; CPU seconds of a loop and of twenty forks as the sandbox counts them."""
    start = time.perf_counter()
    with Pool(workers, engine=engine) as pool:
        pool.run(PROGRAM, LIMITS)
        opened = time.perf_counter() - start
        count = COUNTS[engine]
        start = time.perf_counter()
        verdicts = list(pool.run_many([PROGRAM] * count, LIMITS))
        rate = count / (time.perf_counter() - start)
        loop, forks = (pool.run(program, LIMITS) for program in (LOOPS, FORKS))
    if not all(verdict.passed for verdict in (*verdicts, loop, forks)):
        raise SystemExit(f"not all passed: {next(v for v in (*verdicts, loop, forks) if not v.passed)}")
    return opened, rate, loop.cpu_seconds, forks.cpu_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str | None, list[tuple[float, ...]]] = {}
    missing: dict[str, str] = {}
    for _ in range(asked.rounds):
        for engine in (None, *ENGINES):
            if engine in missing:
                continue
            try:
                found.setdefault(engine, []).append(measure(engine, asked.workers))
            except WishError as error:
                missing[str(engine)] = str(error)
    print(
        f"{asked.workers} workers, median of {asked.rounds} rounds, Linux {platform.release()}, {platform.machine()}\n"
    )
    print(
        "| engine | version | open, s | programs/s | loop, CPU s | 20 forks, CPU s |\n|---|---|---|---|---|---|"
    )
    for engine, rounds in found.items():
        opened, rate, loop, forks = (statistics.median(column) for column in zip(*rounds, strict=True))
        name, version = (engine, version_of(engine)) if engine else ("none", "")
        print(f"| {name} | {version} | {opened:.1f} | {rate:.1f} | {loop:.2f} | {forks:.3f} |")
    for engine, why in missing.items():
        print(f"\n{engine}: {why}")


if __name__ == "__main__":
    main()
