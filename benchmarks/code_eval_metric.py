"""Our `code_eval` beside the library's own: do they say the same of the same programs, and how fast is each.

Run: TEMPER_DATA=FOLDER TEMPER_PEERS=FOLDER python benchmarks/code_eval_metric.py [--samples N] [--workers N] [--write].
TEMPER_DATA holds humaneval/, mbpp/ and codegen16b/ (as for score_codegen16b.py); TEMPER_PEERS holds a checkout of
huggingface/evaluate, whose metrics/code_eval runs the programs **without isolation**. Prints a table; --write also puts
it in docs/results/code_eval_metric.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import evaluate
from executors.machine import ROOT, command, facts, prose
from score_codegen16b import convert

from engine.evaluate import CODE_EVAL
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.code_eval.reference import program
from engine.evaluate.rows import from_file

TIMEOUT = 3.0
NAMED = 12
"""Disagreements shown."""


@dataclass(slots=True)
class Work:
    """Tasks with their candidates and references."""

    name: str
    ids: list[str] = field(default_factory=list)
    predictions: list[list[str]] = field(default_factory=list)
    references: list[str] = field(default_factory=list)

    def add(self, name: str, candidates: list[str], reference: str) -> None:
        self.ids.append(name)
        self.predictions.append(candidates)
        self.references.append(reference)

    @property
    def programs(self) -> int:
        return sum(map(len, self.predictions))

    @property
    def beside(self) -> int:
        """References that must be run in the process of the program they judge."""
        pairs = zip(self.predictions, self.references, strict=True)
        return sum(program(candidates[0], reference).together for candidates, reference in pairs)


@dataclass(frozen=True, slots=True)
class Side:
    """What one metric said, and in what time."""

    pass_at_k: dict[str, float]
    results: dict[int, list[tuple[int, dict[str, Any]]]]
    seconds: float

    def verdicts(self) -> list[tuple[int, int, str]]:
        """(task, candidate, passed, failed or timed out)."""
        return [
            (task, number, told["result"].partition(":")[0])
            for task in sorted(self.results)
            for number, told in self.results[task]
        ]


def humaneval_work(data: Path) -> Work:
    """The references, all right, with HumanEval's `check`."""
    work = Work("HumanEval, canonical solutions")
    for task in humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz")):
        work.add(task.id, [task.prompt + task.reference], f"{task.test}\ncheck({task.entry_point})")
    return work


def codegen_work(data: Path, samples: int) -> Work:
    """Programs of a model, most of them wrong."""
    work = Work(f"HumanEval, CodeGen-16B-mono, {samples} samples a task")
    tasks = {task.id: task for task in humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz"))}
    texts: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _, row in from_file(str(convert(data, Path(folder), None))):
            texts[row["task_id"]].append(row["solution"])
    for name, task in tasks.items():
        work.add(name, texts[name][:samples], f"{task.test}\ncheck({task.entry_point})")
    return work


def mbpp_work(data: Path) -> Work:
    """Each task's reference, and the reference of the task after it, with MBPP's asserts as they stand."""
    work = Work("MBPP, each task's reference and the next task's")
    rows = [row for _, row in from_file(str(data / "mbpp" / "mbpp.jsonl.gz"))]
    for row, after in zip(rows, rows[1:] + rows[:1], strict=True):
        reference = "\n".join([row.get("test_setup_code") or "", *row["test_list"]])
        work.add(f"MBPP/{row['task_id']}", [row["code"], after["code"]], reference)
    return work


def measure(metric: Any, work: Work, workers: int) -> Side:
    """One metric over all of it."""
    started = perf_counter()
    pass_at_k, results = metric.compute(
        predictions=work.predictions,
        references=work.references,
        k=[1, 10],
        num_workers=workers,
        timeout=TIMEOUT,
    )
    return Side(pass_at_k, results, perf_counter() - started)


def row(work: Work, ours: Side, theirs: Side) -> tuple[str, list[str]]:
    """A line of the table, and the programs they disagree on."""
    pairs = list(zip(ours.verdicts(), theirs.verdicts(), strict=True))
    apart = [(mine, other) for mine, other in pairs if mine[2] != other[2]]
    figures = [f"{float(side.pass_at_k['pass@1']):.4f}" for side in (ours, theirs)]
    rates = [work.programs / side.seconds for side in (ours, theirs)]
    kinds = Counter(mine[2] for mine, _ in pairs)
    said = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    line = (
        f"| {work.name} | {work.beside} of {len(work.references):,} | {work.programs:,} | {said} "
        f"| {len(pairs) - len(apart):,} ({1 - len(apart) / len(pairs):.2%}) | {figures[0]} / {figures[1]} "
        f"| {rates[0]:.0f} / {rates[1]:.0f} | {rates[0] / rates[1]:.2f} |"
    )
    told = [
        f"- {work.ids[mine[0]]}, candidate {mine[1]}: ours `{_said(ours, mine)}`, theirs `{_said(theirs, other)}`"
        for mine, other in apart
    ]
    return line, told


def _said(side: Side, verdict: tuple[int, int, str]) -> str:
    return str(side.results[verdict[0]][verdict[1]][1]["result"])[:160].replace("\n", " ").replace("`", "'")


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Our code_eval beside the library's own.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--samples", type=int, default=10, help="Of CodeGen-16B, a task.")
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    if not {"TEMPER_DATA", "TEMPER_PEERS"} <= os.environ.keys():
        sys.exit(
            "set TEMPER_DATA to the field's data and TEMPER_PEERS to the folder of a checkout of evaluate"
        )
    data, peers = (Path(os.environ[name]) for name in ("TEMPER_DATA", "TEMPER_PEERS"))
    os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    ours = evaluate.load(CODE_EVAL)
    theirs = evaluate.load(str(peers / "evaluate" / "metrics" / "code_eval"))
    works: list[Callable[[], Work]] = [
        lambda: humaneval_work(data),
        lambda: codegen_work(data, wish.samples),
        lambda: mbpp_work(data),
    ]
    lines, told = [], []
    for work in (make() for make in works):
        line, differ = row(work, measure(ours, work, wish.workers), measure(theirs, work, wish.workers))
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
        told += differ
    text = page(lines, told, wish.workers)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "code_eval_metric.md").write_text(text, encoding="utf-8")


def page(lines: list[str], told: list[str], workers: int) -> str:
    """The result as Markdown."""
    named = "\n".join(told[:NAMED]) or "None."
    more = f"\n- and {len(told) - NAMED} more" if len(told) > NAMED else ""
    head = prose(
        f"`{command()}`, {facts()}; evaluate {version('evaluate')}, load average at the end {os.getloadavg()[0]:.1f}, "
        f"{workers} workers, timeout {TIMEOUT:g} s. Pairs of figures are ours / theirs; theirs runs the programs in "
        'forked processes without isolation, on wall time, and believes the process that ran them. "References '
        "beside\" are those that need the program's own objects, so ours runs them in its process."
    )
    return f"""# Our `code_eval` beside the library's

{head}

| programs | references beside | count | ours says | same verdict | pass@1 | programs/s | ratio |
|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

Verdicts that differ:

{named}{more}
"""


if __name__ == "__main__":
    main()
