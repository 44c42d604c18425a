"""Scores samples that exist already: verdicts, figures and, where asked for, how good the programs are besides."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.evaluate import efficiency as efficient
from engine.evaluate import libraries
from engine.evaluate import static as looks
from engine.evaluate.benchmarks import Benchmark, find
from engine.evaluate.beyond import Beyond
from engine.evaluate.judge import Court, judge
from engine.evaluate.libraries import Missing
from engine.evaluate.lock import alone
from engine.evaluate.origin import Origin
from engine.evaluate.results import RESULTS, SUMMARY, hashes, write_compared, write_lines
from engine.evaluate.samples import Sample, program_of, read_samples
from engine.evaluate.summary import Found, Scored, some
from engine.evaluate.task import Task
from engine.protocol import write_json
from engine.sandbox import Program, Verdict

Answer = Callable[[int], tuple[Task, Program]]
"""A sample's task and its program, by the sample's index."""
Named = dict[int, dict[str, str]]
"""What each sample's program is known by, by the sample's index."""


@dataclass(frozen=True, slots=True)
class Score:
    """What scoring found."""

    found: Found
    without_samples: tuple[str, ...]
    """Tasks of the benchmark that no line answers; they are in no figure."""
    seconds: float
    court: Court
    origin: Origin
    beyond: Beyond

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints and summary.json holds; of whoever drew the samples nothing is known."""
        return {
            **self.found.as_json(),
            "data": self.origin.as_json(),
            "tasks_without_samples": len(self.without_samples),
            "seconds": {"generation": 0.0, "execution": self.seconds},
            "settings": {"court": asdict(self.court)},
            "notes": self.notes(),
            **self.beyond.as_json(),
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
                + some(self.without_samples)
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
        out: folder for results.jsonl, one line a sample in the file's order, summary.json (and efficiency.jsonl).
        efficiency: how often to run each passing program and its task's reference to compare them; 0: not at all.
        static: look at the programs' texts too.
        progress: told (done, all).

    Raises:
        WishError: a bad line (it is named, nothing was run), isolation not granted, or a folder that cannot be written.
    """
    module = find(benchmark)
    tasks = module.load(data, split=split)
    given = read_samples(samples, {task.id: task for task in tasks})
    if efficiency or static:
        efficient.demand_python(sample.task for sample in given)
    lacking = libraries.missing(tasks, court)
    tasks, asked = libraries.judged(tasks, lacking), _judged(given, lacking)
    court = libraries.opened(court, tasks)
    answer = partial(program_of, module, asked)
    with alone(out):
        verdicts, named, seconds = _run(module, asked, answer, court, progress)
        _write(out, asked, verdicts, named)
        compared = None
        if efficiency:
            passing = efficient.distinct(_passed(asked, answer, verdicts))
            compared = efficient.measure(module, passing, court, repeats=efficiency, progress=progress)
            write_compared(out, compared)
        judged = ((*answer(index), verdicts[index].name) for index in sorted(verdicts))
        beyond = Beyond(compared, looks.describe(looks.by_kind(module, judged)) if static else None)
        answered = {sample.task.id for sample in asked}
        found = Found.of(
            benchmark,
            tasks,
            [_scored(sample, verdicts[index], named[index]) for index, sample in enumerate(asked)],
            k,
            counted=[task for task in tasks if task.id in answered],
            isolation=(verdict.isolation for verdict in verdicts.values()),
            asked=court.limits,
            not_judged=lacking,
        )
        without = tuple(task.id for task in tasks if task.id not in answered)
        score = Score(found, without, round(seconds, 3), court, Origin.of(benchmark, data), beyond)
        if out is not None:
            write_json(out / SUMMARY, score.as_json())
        return score


def _judged(given: Sequence[Sample], lacking: Missing) -> list[Sample]:
    """The samples of tasks that lack nothing. Raises WishError where there is none."""
    libraries.judged(list({sample.task.id: sample.task for sample in given}.values()), lacking)
    return [sample for sample in given if sample.task.id not in lacking]


def _forget(out: Path) -> None:
    """No summary of other results may stand beside new ones, should this be stopped before its end."""
    for name in (SUMMARY, efficient.EFFICIENCY):
        (out / name).unlink(missing_ok=True)


def _write(out: Path | None, asked: Sequence[Sample], verdicts: Mapping[int, Verdict], named: Named) -> None:
    if out is None:
        return
    _forget(out)
    lines = (_line(sample, verdicts[index]) | named[index] for index, sample in enumerate(asked))
    write_lines(out / RESULTS, lines)


def _scored(sample: Sample, verdict: Verdict, named: Mapping[str, str]) -> Scored:
    return Scored(sample.task.id, sample.sample, verdict.name, named.get("answer_sha256"))


def _run(
    module: Benchmark,
    asked: Sequence[Sample],
    answer: Answer,
    court: Court,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[int, Verdict], Named, float]:
    """Each sample's verdict, and what its program is known by, by the sample's index; and the seconds it took."""
    started = time.monotonic()
    verdicts: dict[int, Verdict] = {}
    named: Named = {}
    samples_of = Counter(sample.task.id for sample in asked)

    def answer_and_name(index: int) -> tuple[Task, Program]:
        task, program = answer(index)
        named[index] = hashes(program, samples=samples_of[task.id])
        return task, program

    for index, verdict in judge(module, len(asked), answer_and_name, court):
        verdicts[index] = replace(verdict, stdout="")
        if progress is not None:
            progress(len(verdicts), len(asked))
    return verdicts, named, time.monotonic() - started


def _passed(
    asked: Sequence[Sample], answer: Answer, verdicts: Mapping[int, Verdict]
) -> Iterator[tuple[Task, int, Program]]:
    for index in sorted(verdicts):
        if verdicts[index].passed:
            task, program = answer(index)
            yield task, asked[index].sample, program


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
