"""Scores samples that exist already, in the field's format.

One JSON object a line: `task_id` with `completion` (which continues the prompt) or with `solution` (a whole
program).
"""

from __future__ import annotations

import difflib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import WishError
from engine.evaluate import efficiency as efficient
from engine.evaluate import static as looks
from engine.evaluate.benchmarks import Benchmark, find
from engine.evaluate.efficiency import Efficiency
from engine.evaluate.judge import Court, judge
from engine.evaluate.results import RESULTS, write_lines
from engine.evaluate.rows import from_file
from engine.evaluate.static import Static
from engine.evaluate.summary import Found, Scored
from engine.evaluate.task import Task
from engine.sandbox import Limits, Program, Verdict

Answer = Callable[[int], tuple[Task, Program]]
"""A sample's task and its program, by the sample's index."""

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
    efficiency: Efficiency | None = None
    static: Static | None = None

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        beyond = {"efficiency": self.efficiency, "static": self.static}
        return {
            **self.found.as_json(),
            "tasks_without_samples": len(self.without_samples),
            "seconds": self.seconds,
            "limits": asdict(self.limits),
            "notes": self.notes(),
            **{name: found.as_json() for name, found in beyond.items() if found is not None},
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
        if self.found.unscored:
            notes.append(
                f"the sandbox failed on {self.found.unscored} samples, which are in no figure: score them again"
            )
        return notes


def score(
    benchmark: str,
    data: str | None,
    samples: str,
    *,
    split: str = "test",
    k: Sequence[int] = (1,),
    court: Court,
    out: Path | None = None,
    efficiency: int = 0,
    static: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Judge every sample of a file.

    Args:
        benchmark: its name.
        data: the benchmark's file or hub id, where it is not built in.
        samples: a JSONL file, gzipped or not; `-` reads standard input.
        split: of the benchmark.
        k: of pass@k.
        out: folder for results.jsonl, one line a sample in the file's order (and efficiency.jsonl).
        efficiency: how often to run each passing program and its task's reference to compare them; 0: not at all.
        static: look at the programs' texts too.
        progress: told (done, all).

    Raises:
        WishError: a line that is no sample, or of a task the benchmark does not have (file and line
            are named; nothing was run yet), or isolation this kernel does not grant.
    """
    module = find(benchmark)
    tasks = module.load(data, split=split)
    asked = read_samples(samples, {task.id: task for task in tasks})
    if efficiency or static:
        efficient.demand_python(sample.task for sample in asked)
    started = time.monotonic()
    verdicts: dict[int, Verdict] = {}
    answer = partial(_answer, module, asked)
    for index, verdict in judge(module, len(asked), answer, court):
        verdicts[index] = replace(verdict, stdout=verdict.stdout[:0])
        if progress is not None:
            progress(len(verdicts), len(asked))
    seconds = time.monotonic() - started
    if out is not None:
        write_lines(out / RESULTS, (_line(sample, verdicts[index]) for index, sample in enumerate(asked)))
    compared = None
    if efficiency:
        passing = efficient.distinct(_passed(asked, answer, verdicts))
        compared = efficient.measure(module, passing, court, repeats=efficiency, progress=progress)
    if out is not None:
        efficient.write(out, compared)
    answered = {sample.task.id for sample in asked}
    return Score(
        found=Found.of(
            benchmark,
            tasks,
            [
                Scored(sample.task.id, sample.sample, verdicts[index].name)
                for index, sample in enumerate(asked)
            ],
            k,
            counted=[task for task in tasks if task.id in answered],
            isolation=(verdict.isolation for verdict in verdicts.values()),
        ),
        without_samples=tuple(task.id for task in tasks if task.id not in answered),
        seconds=round(seconds, 3),
        limits=court.limits,
        efficiency=compared,
        static=looks.describe(_texts(module, answer, verdicts)) if static else None,
    )


def _answer(module: Benchmark, asked: Sequence[Sample], index: int) -> tuple[Task, Program]:
    sample = asked[index]
    program = module.program(sample.task, "" if sample.whole else sample.text)
    return sample.task, replace(program, source=sample.text) if sample.whole else program


def _passed(
    asked: Sequence[Sample], answer: Answer, verdicts: Mapping[int, Verdict]
) -> Iterator[tuple[Task, int, Program]]:
    for index in sorted(verdicts):
        if verdicts[index].passed:
            task, program = answer(index)
            yield task, asked[index].sample, program


def _texts(module: Benchmark, answer: Answer, verdicts: Mapping[int, Verdict]) -> dict[str, list[str]]:
    """Whole programs by kind: those that passed, those that failed, and the references of their tasks."""
    texts: dict[str, list[str]] = {"passing": [], "failing": [], "references": []}
    for index in sorted(verdicts):
        task, program = answer(index)
        if verdicts[index].name != "infra":
            texts["passing" if verdicts[index].passed else "failing"].append(program.source)
        if task.reference:
            texts["references"].append(module.program(task, task.reference).source)
    return texts


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
