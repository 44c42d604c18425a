"""The canonical solutions of every set that has them, which must pass, and empty answers, which must not; with costs.

Run: TEMPER_DATA=FOLDER python benchmarks/canonical.py [--workers N] [--sets NAME ... | --write]. The folder holds
humaneval/, humanevalplus/, mbpp/ and infilling/ as `temper benchmark list` names their files, gzipped. Prints a table;
--write also puts it in docs/results/canonical.md. A canonical solution that fails is an error, an empty answer that
passes is named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.bench import Sampled
from executors.machine import ROOT, command, demand_whole, facts, prose
from sandbox_languages import table

from engine.evaluate import Task, find
from engine.evaluate.origin import Origin
from engine.evaluate.results import write_lines
from engine.evaluate.rows import from_file


@dataclass(frozen=True, slots=True)
class Wanted:
    """A benchmark's file, and which split of it."""

    benchmark: str
    file: str
    split: str = "test"


SETS = {
    "HumanEval": Wanted("humaneval", "humaneval/HumanEval.jsonl.gz"),
    "HumanEval+, base inputs": Wanted("humaneval-plus", "humanevalplus/HumanEvalPlus.jsonl.gz", "base"),
    "HumanEval+, all inputs": Wanted("humaneval-plus", "humanevalplus/HumanEvalPlus.jsonl.gz"),
    "MBPP": Wanted("mbpp", "mbpp/mbpp.jsonl.gz", "all"),
    "infilling, single line": Wanted("infilling", "infilling/HumanEval-SingleLineInfilling.jsonl.gz"),
    "infilling, random span": Wanted("infilling", "infilling/HumanEval-RandomSpanInfillingLight.jsonl.gz"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file of answers, scored."""

    summary: dict[str, Any]
    passed: tuple[str, ...]
    """Tasks whose answer did."""
    peak_mib: float = 0.0

    @property
    def seconds(self) -> float:
        """What the programs took."""
        return float(self.summary["seconds"]["execution"])


class Scorer:
    """Runs `temper score` as a user does, in a folder of its own."""

    def __init__(self, folder: Path, data: Path, workers: int) -> None:
        self._folder, self._data, self._workers = folder, data, workers

    def file(self, wanted: Wanted) -> str:
        """The set's file."""
        return str(self._data / wanted.file)

    def score(
        self, wanted: Wanted, tasks: list[Task], answers: list[str], *, weighed: bool = False
    ) -> Outcome:
        """Score an answer a task; `weighed` samples memory, which takes time from the scoring."""
        samples, out = self._folder / "samples.jsonl", self._folder / "out"
        write_lines(
            samples,
            ({"task_id": task.id, "completion": text} for task, text in zip(tasks, answers, strict=True)),
        )
        words = [sys.executable, "-m", "engine", "score", "--benchmark", wanted.benchmark, "--json"]
        words += ["--data", self.file(wanted), "--split", wanted.split, "--samples", str(samples)]
        words += ["--out", str(out), "--workers", str(self._workers)]
        # References answer HumanEval+'s inputs once; a folder of its own makes that part of the first figure.
        env = os.environ | {"XDG_CACHE_HOME": str(self._folder / "cache")}
        sampled, done = Sampled(), threading.Event()
        sampler = threading.Thread(target=sampled.sample, args=(done,))
        if weighed:
            sampler.start()
        ran = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
        done.set()
        if weighed:
            sampler.join()
        if ran.returncode:
            sys.exit(f"temper score ended with {ran.returncode}: {ran.stderr}")
        lines = [row for _, row in from_file(str(out / "results.jsonl"))]
        passed = tuple(row["task_id"] for row in lines if row["verdict"] == "passed")
        return Outcome(json.loads(ran.stdout), passed, sampled.most / 2**20)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a set."""

    name: str
    origin: Origin
    tasks: int
    first: Outcome
    """The canonical solutions, where nothing is kept from before."""
    canonical: Outcome
    weighed: Outcome
    """The canonical solutions once more, with memory sampled."""
    empty: Outcome

    def row(self) -> list[str]:
        """Of the table."""
        seconds = self.canonical.seconds
        cells = [
            self.name,
            f"{self.tasks:,}",
            f"{len(self.canonical.passed):,}",
            f"{len(self.empty.passed):,}",
        ]
        cells += [
            f"{self.first.seconds:.1f} s",
            f"{seconds:.1f} s",
            f"{self.tasks / seconds:.0f}",
        ]
        cells += [f"{self.empty.seconds:.1f} s"]
        return [*cells, f"{self.weighed.peak_mib:,.0f}"]


def find_out(name: str, scorer: Scorer) -> Found:
    wanted = SETS[name]
    tasks = find(wanted.benchmark).load(scorer.file(wanted), split=wanted.split)
    references = [task.reference for task in tasks]
    return Found(
        name,
        Origin.of(wanted.benchmark, scorer.file(wanted)),
        len(tasks),
        scorer.score(wanted, tasks, references),
        scorer.score(wanted, tasks, references),
        scorer.score(wanted, tasks, references, weighed=True),
        scorer.score(wanted, tasks, [""] * len(tasks)),
    )


def page(found: list[Found], workers: int) -> str:
    levels = " and ".join(sorted({one.canonical.summary["isolation"] for one in found}))
    head = prose(
        f"`{command()}`, {facts()}, {workers} workers, isolation {levels}, the default limits; load average at the "
        f"end {os.getloadavg()[0]:.1f}."
    )
    about = prose(
        "Each set's own solutions, scored by `temper score` in a process of its own, twice, and then an empty "
        "answer for each task. Time is that of the executions, the start of the sandbox included. The first time "
        "HumanEval+'s references answer the inputs, and the answers are kept for good. Memory is the largest sum "
        "over the scoring's processes, a shared page counted once, looked at every 20 ms in a pass of its own "
        "over the canonical solutions. Where infilling asks for a line, an empty answer leaves the rest of a "
        "right program, which may not need that line for its tests: such tasks are named."
    )
    heads = [
        "set",
        "tasks",
        "canonical passed",
        "empty passed",
        "first time",
        "time",
        "programs/s",
        "time, empty",
        "peak MiB",
    ]
    rows = table(heads, [one.row() for one in found])
    files = {
        f"- {one.origin.pinned or 'another file than the pinned ones'}, sha256 of the JSONL {one.origin.sha256}"
        for one in found
    }
    text = f"# Canonical solutions of every set\n\n{head}\n\n{about}\n\n{rows}\n\n"
    text += "\n".join(sorted(files)) + "\n"
    for one in found:
        if one.empty.passed:
            names = ", ".join(name.partition("/")[2] for name in one.empty.passed)
            text += f"\n{prose(f'{one.name}: the empty answer passes {names}.')}\n"
    return text


def main() -> None:
    """Print the table, write it where asked, and fail where a canonical solution does."""
    parser = argparse.ArgumentParser(description="Score canonical solutions and empty answers.")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    demand_whole(parser, wish, "sets")
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humaneval/, humanevalplus/, mbpp/ and infilling/")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(Path(folder), Path(os.environ["TEMPER_DATA"]), wish.workers)
        for name in wish.sets:
            found.append(find_out(name, scorer))
            print(f"{name}: {len(found[-1].canonical.passed)} passed", file=sys.stderr, flush=True)
    text = page(found, wish.workers)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "canonical.md").write_text(text, encoding="utf-8")
    if any(
        len(one.canonical.passed) < one.tasks or one.first.passed != one.canonical.passed for one in found
    ):
        sys.exit("a canonical solution failed")


if __name__ == "__main__":
    main()
