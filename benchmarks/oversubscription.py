"""Whether verdicts depend on how busy the machine is: the same programs with 1, 4 and 16 workers a core, and shuffled.

Run: TEMPER_DATA=FOLDER python benchmarks/oversubscription.py [--limit N | --write]. The folder holds
humanevalplus/HumanEvalPlus.jsonl.gz, whose tests have inputs that take seconds. Prints a table; --write also puts it in
docs/results/oversubscription.md. A verdict that differs from the first run's is an error.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from executors.machine import ROOT, command, demand_whole, facts, prose
from sandbox_languages import table

from engine.evaluate import Court, Task, find
from engine.evaluate.judge import judge
from engine.sandbox import Program, Verdict

BENCHMARK = find("humaneval-plus")
TIMES = (1, 4, 16)
SEED = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """All programs, judged once."""

    name: str
    workers: int
    verdicts: dict[str, Verdict]
    seconds: float

    def differing(self, first: Pass) -> list[str]:
        """Programs whose verdict, or its reason, is another than in the first pass."""
        return [
            f"{self.name}: {name} was {told(first.verdicts[name])} and is {told(verdict)}"
            for name, verdict in self.verdicts.items()
            if told(verdict) != told(first.verdicts[name])
        ]


def told(verdict: Verdict) -> str:
    return f"{verdict.name} ({verdict.detail})" if verdict.detail else verdict.name


def most(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first; of equal ones by name, as verdicts come in another order each time."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def programs(data: str, limit: int | None) -> dict[str, tuple[Task, Program]]:
    """Each task's canonical solution, and one that answers None, by name."""
    found = {}
    for task in BENCHMARK.load(data, limit=limit):
        found[f"{task.id}, canonical"] = task, BENCHMARK.program(task, task.reference)
        found[f"{task.id}, wrong"] = task, BENCHMARK.program(task, "    return None\n")
    return found


def judged(name: str, workers: int, order: list[str], trials: dict[str, tuple[Task, Program]]) -> Pass:
    started = time.perf_counter()
    court = Court(workers=workers)
    verdicts = {
        order[index]: verdict
        for index, verdict in judge(BENCHMARK, len(order), lambda index: trials[order[index]], court)
    }
    found = Pass(name, workers, verdicts, time.perf_counter() - started)
    print(f"{name}: {found.seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def page(passes: list[Pass], tasks: int) -> str:
    first = passes[0]
    head = prose(
        f"`{command()}`, {facts()}; isolation {first.verdicts[next(iter(first.verdicts))].isolation}, default "
        "limits (HumanEval+ asks for 20 CPU seconds and 60 s of wall time); load average at the end "
        f"{os.getloadavg()[0]:.1f}."
    )
    about = prose(
        f"The {tasks} canonical solutions of HumanEval+ on all its inputs, and {tasks} programs that answer None. "
        "The limit that decides is CPU time, and what a program and its judge wait for a CPU does not count as wall "
        "time, so a busy machine must change no verdict. Differing: verdicts that are another than in the first "
        "pass, or have another reason. Longest: the most wall time and the most CPU time that one program took."
    )
    rows = []
    for one in passes:
        counts = Counter(verdict.name for verdict in one.verdicts.values())
        cells = [one.name, str(one.workers), f"{counts['passed']} of {tasks}"]
        cells += [
            ", ".join(f"{name} {count}" for name, count in most(counts)),
            str(len(one.differing(first))),
        ]
        cells += [
            f"{max(getattr(v, kind) for v in one.verdicts.values()):.1f} s"
            for kind in ("wall_seconds", "cpu_seconds")
        ]
        rows.append([*cells, f"{one.seconds:.0f} s", f"{len(one.verdicts) / one.seconds:.1f}"])
    heads = [
        "pass",
        "workers",
        "canonical passed",
        "verdicts",
        "differing",
        "longest wall",
        "longest CPU",
        "time",
        "programs/s",
    ]
    changed = "".join(f"- {line}\n" for one in passes for line in one.differing(first))
    return f"# Verdicts on a busy machine\n\n{head}\n\n{about}\n\n{table(heads, rows)}\n" + (
        changed and f"\n{changed}"
    )


def main() -> None:
    """Print the table, write it where asked, and fail where a verdict changed."""
    parser = argparse.ArgumentParser(description="Judge the same programs with too many workers.")
    parser.add_argument("--limit", type=int, help="first so many tasks only")
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    demand_whole(parser, wish, "limit")
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humanevalplus/")
    cores = os.cpu_count() or 1
    trials = programs(
        str(Path(os.environ["TEMPER_DATA"]) / "humanevalplus" / "HumanEvalPlus.jsonl.gz"), wish.limit
    )
    order = list(trials)
    shuffled = random.Random(SEED).sample(order, len(order))
    passes = [judged(f"{times} a core", times * cores, order, trials) for times in TIMES]
    passes += [
        judged(f"{times} a core, shuffled", times * cores, shuffled, trials)
        for times in (TIMES[0], TIMES[-1])
    ]
    text = page(passes, len(order) // 2)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "oversubscription.md").write_text(text, encoding="utf-8")
    if any(one.differing(passes[0]) for one in passes):
        sys.exit("a verdict changed")


if __name__ == "__main__":
    main()
