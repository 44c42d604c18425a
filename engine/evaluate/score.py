"""Scores samples that exist already, in the field's format.

One JSON object a line: `task_id` with `completion` (which continues the prompt) or with `solution` (a whole
program).
"""

from __future__ import annotations

import difflib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import WishError
from engine.evaluate import libraries
from engine.evaluate.benchmarks import find
from engine.evaluate.judge import Court, judge
from engine.evaluate.origin import Origin
from engine.evaluate.results import RESULTS, SUMMARY, hashes, write_lines
from engine.evaluate.rows import from_file
from engine.evaluate.summary import Found, Scored
from engine.evaluate.task import Task
from engine.protocol import write_json
from engine.sandbox import Limits, Program, Verdict

NAMED = 5
"""How many of a long list an error or a note names."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a samples file; `sample` counts the lines of its task from 0."""

    task: Task
    sample: int
    text: str
    whole: bool
    """Whether `text` is a whole program rather than a continuation of the prompt."""


@dataclass(frozen=True, slots=True)
class Score:
    """What scoring found."""

    found: Found
    without_samples: tuple[str, ...]
    """Tasks of the benchmark that no line answers; they are in no figure."""
    seconds: float
    limits: Limits
    origin: Origin

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            **self.found.as_json(),
            "data": self.origin.as_json(),
            "tasks_without_samples": len(self.without_samples),
            "seconds": self.seconds,
            "limits": asdict(self.limits),
            "notes": self.notes(),
        }

    def summary(self, court: Court) -> dict[str, Any]:
        """The whole of summary.json, in the form of an evaluation's; of whoever drew the samples nothing is known."""
        return {
            **self.found.as_json(),
            "data": self.origin.as_json(),
            "seconds": {"generation": 0.0, "execution": self.seconds},
            "settings": {"court": asdict(court)},
        }

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        notes = [
            f"pass@{k} is undefined: {value.reason}"
            for k, value in self.found.figures.pass_at_k.items()
            if value.reason is not None
        ]
        if self.without_samples:
            notes.append(
                f"{len(self.without_samples)} tasks of the benchmark have no sample and are in no figure: "
                + _some(self.without_samples)
            )
        if self.found.not_judged:
            notes.append(libraries.told(self.found.not_judged))
        if self.found.unscored:
            notes.append(
                f"the sandbox failed on {self.found.unscored} samples, which are in no figure: score them again"
            )
        return [*notes, self.origin.note] if self.origin.note else notes


def score(
    benchmark: str,
    data: str | None,
    samples: str,
    *,
    split: str = "test",
    k: Sequence[int] = (1,),
    court: Court,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Judge every sample of a file.

    Args:
        benchmark: its name.
        data: the benchmark's file or hub id, where it is not built in.
        samples: a JSONL file, gzipped or not; `-` reads standard input.
        split: of the benchmark.
        k: of pass@k.
        out: folder for results.jsonl, one line a sample in the file's order, and summary.json.
        progress: told (done, all).

    Raises:
        WishError: a line that is no sample, or of a task the benchmark does not have (file and line
            are named; nothing was run yet), or isolation this kernel does not grant.
    """
    module = find(benchmark)
    tasks = module.load(data, split=split)
    given = read_samples(samples, {task.id: task for task in tasks})
    lacking = libraries.missing(tasks, court)
    tasks = libraries.judged(tasks, lacking)
    asked = [sample for sample in given if sample.task.id not in lacking]
    libraries.judged([sample.task for sample in given], lacking)
    court = libraries.opened(court, tasks)
    started = time.monotonic()
    verdicts: dict[int, Verdict] = {}
    named: dict[int, dict[str, str]] = {}
    samples_of = Counter(sample.task.id for sample in asked)

    def answer(index: int) -> tuple[Task, Program]:
        sample = asked[index]
        program = module.program(sample.task, "" if sample.whole else sample.text)
        program = replace(program, source=sample.text) if sample.whole else program
        named[index] = hashes(program, samples=samples_of[sample.task.id])
        return sample.task, program

    for index, verdict in judge(module, len(asked), answer, court):
        verdicts[index] = replace(verdict, stdout=verdict.stdout[:0])
        if progress is not None:
            progress(len(verdicts), len(asked))
    seconds = time.monotonic() - started
    scored = [
        Scored(sample.task.id, sample.sample, verdicts[index].name, named[index].get("answer_sha256"))
        for index, sample in enumerate(asked)
    ]
    found = Score(
        found=Found.of(
            benchmark,
            tasks,
            scored,
            k,
            counted=[task for task in tasks if task.id in samples_of],
            isolation=(verdict.isolation for verdict in verdicts.values()),
            not_judged=lacking,
        ),
        without_samples=tuple(task.id for task in tasks if task.id not in samples_of),
        seconds=round(seconds, 3),
        limits=court.limits,
        origin=Origin.of(benchmark, data),
    )
    if out is not None:
        lines = (_line(sample, verdicts[index]) | named[index] for index, sample in enumerate(asked))
        write_lines(out / RESULTS, lines)
        write_json(out / SUMMARY, found.summary(court))
    return found


def read_samples(source: str, tasks: Mapping[str, Task]) -> list[Sample]:
    """Read a samples file as a whole, so that a bad line stops it before any program has run."""
    seen: Counter[str] = Counter()
    found = []
    for place, row in from_file(source):
        task, text, whole = _sample(row, place, tasks)
        found.append(Sample(task, seen[task.id], text, whole))
        seen[task.id] += 1
    if not found:
        raise WishError(
            f"{source} holds no sample", "give one JSON object a line: task_id with completion or solution"
        )
    return found


def _sample(row: Any, place: str, tasks: Mapping[str, Task]) -> tuple[Task, str, bool]:
    fix = (
        "give every line a task_id and a completion (it continues the prompt) or a solution (a whole program)"
    )
    if not isinstance(row, dict):
        raise WishError(f"{place}: a {type(row).__name__}, not a JSON object", fix)
    name = row.get("task_id")
    if not isinstance(name, str):
        raise WishError(f"{place}: task_id is {json.dumps(name)}, not a text", fix)
    if name not in tasks:
        near = difflib.get_close_matches(name, tasks, n=1, cutoff=0.0)
        raise WishError(
            f"{place}: the benchmark has no task {name!r}",
            f"the nearest of its {len(tasks)} tasks is {near[0]!r}; give the data the samples were drawn for",
        )
    given = [field for field in ("completion", "solution") if field in row]
    if len(given) != 1:
        raise WishError(f"{place}: {' and '.join(given) or 'neither completion nor solution'} given", fix)
    if not isinstance(row[given[0]], str):
        raise WishError(f"{place}: {given[0]} is {json.dumps(row[given[0]])[:40]}, not a text", fix)
    return tasks[name], row[given[0]], given[0] == "solution"


def _line(sample: Sample, verdict: Verdict) -> dict[str, Any]:
    return {
        "task_id": sample.task.id,
        "sample": sample.sample,
        "verdict": verdict.name,
        "detail": verdict.detail,
        "exit_code": verdict.exit_code,
        "signal": verdict.signal,
        "cpu_seconds": round(verdict.cpu_seconds, 4),
        "wall_seconds": round(verdict.wall_seconds, 4),
        "peak_memory_mb": verdict.peak_memory_mb,
        "stderr": verdict.stderr,
    }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
