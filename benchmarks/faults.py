"""Who is blamed, over one hundred faults of real ranks: Temper's verdict beside plain torchrun's root cause.

Run: python benchmarks/faults.py [--write] [--only WORD] [--limit SECONDS]. Prints tables; --write also puts them in
docs/results/faults.md. --only keeps the cases whose text has the word; --limit is how long torchrun may be silent after
a fault (20). Root and a control group for memory are needed for two of the faults. About half an hour.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from faulty.case import FAULTS, LAUNCHER, WORLD_SIZE, cases
from faulty.trial import (
    ELSEWHERE_SECONDS,
    HANG_SECONDS,
    SURVIVAL_SECONDS,
    Trial,
    possible,
    under_temper,
    under_torchrun,
)

from engine import heartbeat
from engine.heartbeat import STEP_PHASES, Where

ROOT = Path(__file__).parent.parent
STEPS = 20_000
ROUNDS = 5


def cost() -> tuple[float, int]:
    """Nanoseconds of one change of phase, the median of rounds; and how many a step with one micro-batch makes."""
    rounds = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        where = Where(heartbeat.page(Path(name), 0))
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for step in range(STEPS):
                where.at("data", step)
                for phase in STEP_PHASES[1:]:
                    where.at(phase)
            rounds.append((time.perf_counter() - began) / STEPS / len(STEP_PHASES) * 1e9)
    return statistics.median(rounds), len(STEP_PHASES)


def table(ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[str]:
    """Right of total for each fault."""
    rows = [
        "| fault | Temper: right one named | torchrun: right rank named | torchrun: left running |",
        "|---|---|---|---|",
    ]
    for fault in (*FAULTS, LAUNCHER, ""):
        mine = [trial for trial in ours if fault in ("", trial.case.fault)]
        other = [trial for trial in theirs if fault in ("", trial.case.fault)]
        if mine:
            name = fault or "**all**"
            rows.append(
                f"| {name} | {sum(trial.right for trial in mine)} of {len(mine)} | {named(other)} of {len(other)} "
                f"| {sum(bool(trial.survivors) for trial in other)} of {len(other)} |"
            )
    return rows


def named(trials: Sequence[Trial]) -> int:
    """How many root causes were the rank that went wrong."""
    return sum(trial.named == trial.case.rank for trial in trials)


def spread(seconds: Sequence[float]) -> str:
    """Median and most."""
    return (
        f"median {statistics.median(seconds):.1f} s, most {max(seconds):.1f} s" if seconds else "not measured"
    )


def report(ours: Sequence[Trial], theirs: Sequence[Trial], limit: float, left_out: int) -> str:
    """The page."""
    nanoseconds, changes = cost()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "accelerate"))
    seconds = {
        fault: spread([trial.seconds for trial in ours if trial.case.fault == fault])
        for fault in (*FAULTS, LAUNCHER)
    }
    wrong = [
        f"- {trial.case}: exit code {trial.exit_code}, {trial.sentence}" for trial in ours if not trial.right
    ]
    lines = [
        "# Faults: who is blamed",
        "",
        f"`python benchmarks/faults.py`, {datetime.now(UTC):%Y-%m-%d}, {packages}, Python "
        f"{platform.python_version()}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU.",
        "",
        f"{WORLD_SIZE} ranks with real collectives over gloo (benchmarks/faulty/rank.py); each in turn goes wrong at",
        "four places. A case is right when the launcher blames that rank (or, where it was itself killed, its account",
        f"says so), does not exit with 0, and no process is left {SURVIVAL_SECONDS:.0f} s later. torchrun is `torchrun",
        '--standalone` on the same script, judged by the rank of its "Root Cause" alone; one that says nothing for',
        f"{limit:.0f} s after the fault is counted as naming nobody (its own limit would be that of the collective).",
        f"Cases left out, as this machine cannot bring them about: {left_out}.",
        "",
        *table(ours, theirs),
        "",
        "From the fault to the launcher's end, everything stopped:",
        "",
        "| fault | Temper |",
        "|---|---|",
        *(f"| {fault} | {text} |" for fault, text in seconds.items() if text != "not measured"),
        "",
        "A stopped rank is named, and the run ended, within three usual steps and five seconds. A rank that sleeps",
        f"inside a step is ended by `parallel.hang_seconds`, here {HANG_SECONDS} (300 by default), and while saving by",
        f"`parallel.timeout_seconds`, here {ELSEWHERE_SECONDS} (1800).",
        "",
        f"Heartbeats: {nanoseconds:.0f} ns a change of phase, {changes} changes a step and two more for each further",
        f"micro-batch: {nanoseconds * changes / 1000:.1f} microseconds a step.",
    ]
    return "\n".join([*lines, *(["", "Wrong:", "", *wrong] if wrong else [])]) + "\n"


def main() -> None:
    """Print the page, and write it where asked."""
    word = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    limit = float(sys.argv[sys.argv.index("--limit") + 1]) if "--limit" in sys.argv else 20.0
    wanted = [case for case in cases() if word in str(case)]
    ours, theirs = [], []
    for case in filter(possible, wanted):
        ours.append(under_temper(case))
        theirs.append(under_torchrun(case, limit=limit))
        mine, other = ours[-1], theirs[-1]
        verdict = "right" if mine.right else "WRONG"
        print(f"{case!s:45} {verdict} {mine.seconds:5.1f} s; torchrun named {other.named}", flush=True)
    text = report(ours, theirs, limit, len(wanted) - len(ours))
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "faults.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
