"""What is asked of judged programs beside their verdicts: efficiency and static facts, continued like the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from engine.evaluate import efficiency as efficient
from engine.evaluate import journal
from engine.evaluate import static as looks
from engine.evaluate.benchmarks import Benchmark, find, fingerprint
from engine.evaluate.efficiency import Compared, Efficiency, LeftOut, Passing
from engine.evaluate.job import Job
from engine.evaluate.judge import Court
from engine.evaluate.libraries import opened
from engine.evaluate.majority import digest
from engine.evaluate.static import Static
from engine.evaluate.task import Task
from engine.generate import Generation
from engine.sandbox import Program


@dataclass(frozen=True, slots=True)
class Beyond:
    """What was found; None where it was not asked for."""

    efficiency: Efficiency | None = None
    static: Static | None = None

    def as_json(self) -> dict[str, Any]:
        """These parts of summary.json and of what `--json` prints."""
        parts = {"efficiency": self.efficiency, "static": self.static}
        return {name: found.as_json() for name, found in parts.items() if found is not None}

    def lines(self) -> list[str]:
        """For a person to read."""
        return [line for part in (self.efficiency, self.static) if part for line in part.lines()]


def look(
    job: Job,
    answers: dict[str, Generation],
    verdicts: dict[str, dict[str, Any]],
    tell: Callable[[str, int, int], None],
) -> Beyond:
    """Measure and describe what an evaluation's settings ask for; measurements in the folder's journal stay.

    Args:
        job: the evaluation.
        answers: by the item's key.
        verdicts: records of the verdict journal, by the item's key.
        tell: told ("measure", done, all).
    """
    benchmark, settings = find(job.benchmark), job.settings

    def judged() -> Iterator[tuple[Task, int, Program, str]]:
        for item in job.items:
            program = benchmark.program(item.task, job.completion(item, answers[item.key]))
            yield item.task, item.request.sample, program, verdicts[item.key]["verdict"]

    compared = None
    if settings.efficiency:
        passing = efficient.distinct(
            (task, at, program) for task, at, program, verdict in judged() if verdict == "passed"
        )
        outcomes = _compared(job, benchmark, passing, settings.efficiency, tell)
        compared = Efficiency.of(settings.efficiency, outcomes)
    described = None
    if settings.static:
        texts = looks.by_kind(benchmark, ((task, program, verdict) for task, _, program, verdict in judged()))
        described = looks.describe(texts)
    return Beyond(compared, described)


def _compared(
    job: Job,
    benchmark: Benchmark,
    passing: Sequence[Passing],
    repeats: int,
    tell: Callable[[str, int, int], None],
) -> list[Compared | LeftOut]:
    """The outcome of each program, measured now where the journal has none."""
    court = opened(job.settings.court, job.tasks)
    cases = [_case(one, court, repeats) for one in passing]
    found = {record["case"]: record for record in journal.read(job.place.measurements) if "case" in record}
    waiting = [index for index, case in enumerate(cases) if case not in found]
    with journal.Journal(job.place.measurements) as book:
        outcomes = efficient.compare(benchmark, [passing[index] for index in waiting], court, repeats=repeats)
        for count, (index, outcome) in enumerate(zip(waiting, outcomes, strict=True), start=1):
            told = {"compared": asdict(outcome)} if isinstance(outcome, Compared) else {"left_out": outcome}
            record = {"case": cases[index], **told}
            if outcome != "infra":  # left out, so that another run tries it again
                record = book.append(record)
            found[cases[index]] = record
            tell("measure", count, len(waiting))
    return [_outcome(found[case], one) for case, one in zip(cases, passing, strict=True)]


def _outcome(record: dict[str, Any], one: Passing) -> Compared | LeftOut:
    """As it was measured, for the samples that are this program today."""
    if "compared" not in record:
        return cast(LeftOut, record["left_out"])
    return Compared(**record["compared"] | {"samples": one.samples})


def _case(one: Passing, court: Court, repeats: int) -> str:
    """Names a measurement: another program, task, limit or number of runs is another one."""
    terms = asdict(replace(court, workers=1))
    return digest(json.dumps([fingerprint([one.task]), one.program.source, terms, repeats]))
