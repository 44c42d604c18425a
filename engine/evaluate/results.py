"""The files an evaluation ends with, computed from its journals: tasks.jsonl, results.jsonl, summary.json."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.evaluate import journal
from engine.evaluate.benchmarks import find
from engine.evaluate.beyond import Beyond
from engine.evaluate.efficiency import EFFICIENCY, Efficiency
from engine.evaluate.job import Item, Job
from engine.evaluate.majority import LEAST_VOTES, answer, digest
from engine.evaluate.summary import Found, Scored, Summary
from engine.evaluate.task import Task
from engine.generate import EXTRACT_VERSION, Generation
from engine.protocol import write_json
from engine.sandbox import Program

TASKS = "tasks.jsonl"
SHOWN = ("group", "prompt", "reference", "language")
"""Of a task, in tasks.jsonl."""
RESULTS = "results.jsonl"
SUMMARY = "summary.json"


def conclude(
    job: Job, answers: dict[str, Generation], verdicts: dict[str, dict[str, Any]], beyond: Beyond
) -> Summary:
    """Count, and write the files.

    Args:
        answers: by the item's key.
        verdicts: records of the verdict journal, by the item's key.
        beyond: what was found beside them.
    """
    items = job.items
    lines = [_line(job, item, answers[item.key], verdicts[item.key]) for item in items]
    scored = [
        Scored(line["task_id"], line["sample"], line["verdict"], line.get("answer_sha256")) for line in lines
    ]
    summary = Summary(
        found=Found.of(
            job.benchmark,
            job.tasks,
            scored,
            job.settings.k,
            isolation=(record["isolation"] for record in verdicts.values()),
            asked=job.settings.court.limits,
            not_judged=job.not_judged,
        ),
        truncated=sum(answers[item.key].finish == "length" for item in items),
        seconds=_seconds(job, verdicts),
        settings=asdict(job.settings) | {"chat": job.chat},
        extract_version=EXTRACT_VERSION,
        origin=job.origin,
        only_thinking=sum(job.only_thinks(item, answers[item.key]) for item in items),
        beyond=beyond,
    )
    folder = job.place.folder
    asked = {item.task.id: item.request.prompt for item in items}
    write_lines(folder / TASKS, (_task(task, asked.get(task.id, task.prompt)) for task in job.tasks))
    written = write_lines(folder / RESULTS, lines)
    write_compared(folder, beyond.efficiency)
    # Whoever is stopped between the two leaves a summary that says it is not of these results.
    write_json(folder / SUMMARY, summary.as_json() | {"results_sha256": written})
    return summary


def write_compared(folder: Path | None, found: Efficiency | None) -> None:
    """Leave efficiency.jsonl in a folder, if there is one: a line for each program; no file of older measurements
    where nothing was measured."""
    if folder is None:
        return
    if found is None:
        (folder / EFFICIENCY).unlink(missing_ok=True)
    else:
        write_lines(folder / EFFICIENCY, map(asdict, found.compared))


def hashes(program: Program, *, samples: int) -> dict[str, str]:
    """What a line of results.jsonl says of the program itself, so that two evaluations can be compared by it.

    Args:
        program: what was run.
        samples: of its task; with enough of them for a vote, its answer's hash is added.
    """
    names = {"program_sha256": digest(program.source)}
    return names | {"answer_sha256": answer(program)} if samples >= LEAST_VOTES else names


def _task(task: Task, asked: str) -> dict[str, Any]:
    """One line of tasks.jsonl; `asked` is what was put to the model, where that is not the prompt alone."""
    line = {"task_id": task.id, **{name: getattr(task, name) for name in SHOWN}}
    return line if asked == task.prompt else line | {"asked": asked}


def _line(job: Job, item: Item, said: Generation, verdict: dict[str, Any]) -> dict[str, Any]:
    """One line of results.jsonl.

    Times and exit codes stay in the journal: two runs of one program may differ in them.
    """
    completion = job.completion(item, said)
    program = find(job.benchmark).program(item.task, completion)
    return {
        "task_id": item.task.id,
        "sample": item.request.sample,
        "group": item.task.group,
        "verdict": verdict["verdict"],
        "detail": verdict["detail"],
        "stderr": verdict["stderr"],
        "completion": completion,
        "seed": said.seed,
        "tokens": said.tokens,
        "finish": said.finish,
        "key": item.key,
        "text_sha256": digest(said.text),
        **hashes(program, samples=job.settings.samples),
    }


def _seconds(job: Job, verdicts: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Wall time of the work itself, over all attempts: the slowest rank's generation, and the execution."""
    wanted = {item.key for item in job.items}
    ranks = [
        sum(record.get("elapsed", 0.0) for record in journal.read(path) if record.get("key") in wanted)
        for path in job.place.journals()
    ]
    execution = sum(record.get("elapsed", 0.0) for record in verdicts.values())
    return {"generation": round(max(ranks, default=0.0), 3), "execution": round(execution, 3)}


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> str:
    """Write a JSONL file so that readers see the old one or the new one, never half of it; its SHA-256."""
    written = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for record in records:
            line = json.dumps(record) + "\n"
            file.write(line)
            written.update(line.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return written.hexdigest()
