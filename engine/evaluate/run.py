"""An evaluation that can be killed at any moment: answers over the ranks, verdicts on rank 0, then figures.

Everything in results.jsonl and summary.json is computed from the journals, so a run that was killed and
started again, with any number of ranks, ends with the same files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import TemperError
from engine.evaluate import journal
from engine.evaluate.benchmarks import find, fingerprint
from engine.evaluate.beyond import look
from engine.evaluate.job import Item, Job, Place, Settings
from engine.evaluate.judge import Court, judge
from engine.evaluate.libraries import Missing, opened
from engine.evaluate.lock import alone
from engine.evaluate.origin import Origin
from engine.evaluate.results import conclude
from engine.evaluate.summary import Summary
from engine.evaluate.task import Ask, Task
from engine.generate import EXTRACT_VERSION, Generation, Request, Sampling, sample_seed
from engine.sandbox import Program, Verdict

Generator = Callable[[Sequence[Request]], Iterator[Generation]]
Progress = Callable[[str, int, int], None]

KEPT_STDERR = 2000


def evaluate(
    tasks: Sequence[Task],
    benchmark: str,
    settings: Settings,
    *,
    generator: Generator,
    folder: Path,
    rank: int,
    world_size: int,
    barrier: Callable[[], None],
    ask: Ask,
    chat: bool,
    origin: Origin | None = None,
    progress: Progress | None = None,
    not_judged: Missing | None = None,
) -> Summary | None:
    """Draw the samples this rank owes, and on rank 0 judge all of them.

    Args:
        tasks: what to ask, the same list on every rank.
        benchmark: its name in `BENCHMARKS`.
        generator: yields one Generation for each Request, in any order. It is called once on every rank, even
            with nothing to draw, since sharded models need all ranks to take part.
        folder: shared by all ranks; journals found there are continued.
        barrier: returns when all ranks have called it; called once, after generation.
        ask: what is put to the model for a task.
        chat: whether that is a question, answered in prose with fenced code, or code to go on with.
        origin: what the tasks were read from, for the summary.
        progress: told (phase, done, all) as the work goes.
        not_judged: tasks of the benchmark that are not among `tasks`, for which libraries are missing.

    Returns:
        The summary on rank 0, None elsewhere (at once: other ranks do not wait for the verdicts).

    Raises:
        WishError: another process works in the folder, or the sandbox cannot isolate as asked.
        TemperError: the generator left out a request.
    """
    tell = progress or (lambda phase, done, whole: None)
    place = Place(folder, rank, world_size)
    items = plan(tasks, settings, ask)
    job = Job(tuple(tasks), benchmark, settings, chat, items, place, not_judged or {}, origin)
    with alone(folder if rank == 0 else None):
        _generate(job, generator, tell)
        barrier()
        if rank != 0:
            return None
        answers = _merge(job)
        verdicts = execute(job, answers, tell)
        return conclude(job, answers, verdicts, look(job, answers, verdicts, tell))


def plan(tasks: Sequence[Task], settings: Settings, ask: Ask) -> list[Item]:
    """Every sample wanted, in canonical order: by task as listed, then by sample."""
    items = []
    for task in tasks:
        prompt, stop = ask(task)
        sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, stop)
        for sample in range(settings.samples):
            seed = sample_seed(settings.seed, task.id, sample)
            request = Request(task.id, sample, prompt, seed, sampling)
            items.append(Item(task, request, _hash(settings.model, asdict(request))))
    return items


def _generate(job: Job, generator: Generator, tell: Progress) -> None:
    """Draw this rank's share. Each item has one owner whatever the journals hold, so no two ranks draw it."""
    place = job.place
    done = {record.get("key") for path in place.journals() for record in journal.read(path)}
    mine = [item for item in job.items[place.rank :: place.world_size] if item.key not in done]
    keys = {(item.request.task_id, item.request.sample): item.key for item in mine}
    with journal.Journal(place.generations) as book:
        for count, answer in enumerate(generator([item.request for item in mine]), start=1):
            book.append({"key": keys.pop((answer.task_id, answer.sample)), **asdict(answer)})
            tell("generate", count, len(mine))
    if keys:
        raise TemperError(
            f"the generator left out {len(keys)} of {len(mine)} requests", "report this with the run's log"
        )


def _merge(job: Job) -> dict[str, Generation]:
    """All ranks' answers by key, whatever number of ranks wrote them; of one drawn twice the first counts."""
    wanted = {item.key for item in job.items}
    answers: dict[str, Generation] = {}
    for path in job.place.journals():
        for record in journal.read(path):
            if record.get("key") in wanted and record["key"] not in answers:
                answers[record["key"]] = Generation.of(record)
    if len(answers) < len(wanted):
        missing = next(item.request for item in job.items if item.key not in answers)
        raise TemperError(
            f"{len(wanted) - len(answers)} of {len(wanted)} answers are in no journal of {job.place.folder}, "
            f"such as {missing.task_id} sample {missing.sample}",
            "give all ranks the same folder on a shared file system, and run again",
        )
    return answers


def execute(job: Job, answers: dict[str, Generation], tell: Progress) -> dict[str, dict[str, Any]]:
    """Judge every answer not judged yet; returns the verdict records by the item's key."""
    court = job.settings.court
    terms = [asdict(court.limits), court.level, court.preload, EXTRACT_VERSION, fingerprint(job.tasks)]
    terms += [court.engine] if court.engine else []
    terms += [court.mode] if court.mode != Court().mode else []
    terms += [f"{job.settings.thinking.name} {job.settings.thinking.version}"] if job.chat else []
    cases = {_hash(item.key, terms): item for item in job.items}
    found = {
        record["case"]: record for record in journal.read(job.place.verdicts) if record.get("case") in cases
    }
    waiting = [case for case in cases if case not in found]
    benchmark = find(job.benchmark)
    court = opened(court, job.tasks)

    def answer(index: int) -> tuple[Task, Program]:
        item = cases[waiting[index]]
        return item.task, benchmark.program(item.task, job.completion(item, answers[item.key]))

    with journal.Journal(job.place.verdicts) as book:
        for count, (index, verdict) in enumerate(judge(benchmark, len(waiting), answer, court), start=1):
            record = {"case": waiting[index], **_told(verdict)}
            if verdict.name != "infra":  # left out, so that another run tries it again
                record = book.append(record)
            found[waiting[index]] = record
            tell("execute", count, len(waiting))
    return {item.key: found[case] for case, item in cases.items()}


def _told(verdict: Verdict) -> dict[str, Any]:
    told = asdict(verdict)
    told["verdict"] = told.pop("name")
    told["stderr"] = verdict.stderr[-KEPT_STDERR:]
    del told["stdout"]
    return told


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]
