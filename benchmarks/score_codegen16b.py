"""pass@1, 10 and 100 of CodeGen-16B-mono on HumanEval from its published samples, and how fast they are judged.

Run: TEMPER_DATA=FOLDER python benchmarks/score_codegen16b.py [--workers N] [--limit TASKS] [--write]. The folder holds
humaneval/HumanEval.jsonl.gz and codegen16b/samples.jsonl.gz (prompt and 100 samples a task, from microsoft/CodeT).
Prints a table; --write also puts it in docs/results/score_codegen16b.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from engine.evaluate import Court
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.score import score
from engine.evaluate.summary import Found
from engine.generate.extract import cut
from engine.sandbox import Limits

ROOT = Path(__file__).parent.parent
PUBLISHED = {1: 0.2928, 10: 0.4986, 100: 0.7500}
"""CodeGen-Mono 16.1B in its paper (arXiv 2203.13474): the best temperature for each k, 200 samples."""


def convert(data: Path, folder: Path, limit: int | None) -> Path:
    """The published samples in the field's format.

    They are in the order of the task ids as text. Their prompts are HumanEval's without the examples in the
    docstrings, so each program is the prompt that was used with its sample, cut at the benchmark's stops as a
    generation would be.
    """
    tasks = sorted(humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz")), key=lambda task: task.id)
    target = folder / "samples.jsonl"
    with (
        gzip.open(data / "codegen16b" / "samples.jsonl.gz", "rt", encoding="utf-8") as lines,
        target.open("w") as out,
    ):
        for task, line in zip(tasks, lines, strict=True):
            row = json.loads(line)
            if f"def {task.entry_point}" not in row["prompt"]:
                sys.exit(f"{task.id}: the samples answer another prompt")
            for sample in row["samples"]:
                solution = row["prompt"] + cut(sample, humaneval.STOP)
                out.write(json.dumps({"task_id": task.id, "solution": solution}) + "\n")
            limit = limit - 1 if limit is not None else None
            if limit == 0:
                break
    return target


def table(found: Found) -> str:
    lines = ["| k | pass@k | 95 % interval | published |", "|---|---|---|---|"]
    for k, value in found.figures.pass_at_k.items():
        if value.value is not None and value.low is not None and value.high is not None:
            lines.append(
                f"| {k} | {value.value:.2%} | {value.low:.2%} to {value.high:.2%} | {PUBLISHED[k]:.2%} |"
            )
    lines += ["", "| verdict | programs |", "|---|---|"]
    lines += [f"| {name} | {count:,} |" for name, count in found.verdicts.items()]
    return "\n".join(lines)


def show(done: int, whole: int) -> None:
    if done % 500 == 0:
        print(f"{done:,} of {whole:,}", file=sys.stderr, flush=True)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Score CodeGen-16B-mono's published HumanEval samples.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with humaneval/ and codegen16b/")
    data = Path(os.environ["TEMPER_DATA"])
    court = Court(Limits(cpu_seconds=3.0, wall_seconds=9.0), workers=wish.workers)
    with tempfile.TemporaryDirectory() as folder:
        samples = convert(data, Path(folder), wish.limit)
        tasks = str(data / "humaneval" / "HumanEval.jsonl.gz")
        scored = score("humaneval", tasks, str(samples), k=(1, 10, 100), court=court, progress=show)
    found = scored.found
    count = found.figures.samples + found.unscored
    load, rate = os.getloadavg()[0], count / scored.seconds
    text = f"""# CodeGen-16B-mono on HumanEval, from its published samples

`python benchmarks/score_codegen16b.py`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()},
Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores (load average at the end {load:.1f}),
{wish.workers} workers, isolation {found.isolation}, 3 CPU seconds, 9 s of wall time and 1 GiB a program.

{count:,} programs of {found.figures.tasks} tasks in {scored.seconds:.1f} s: **{rate:.0f} programs/s**;
{found.unscored} without a verdict.

{table(found)}

The samples were drawn at temperature 0.8 with top_p 0.95, 100 a task; the published row takes the best temperature
for each k, which for pass@1 is a lower one.
"""
    print(text)
    if wish.write:
        target = ROOT / "docs" / "results" / "score_codegen16b.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
