"""Judges the answers of an evaluation folder anew: no model, no tokenizer and no accelerator is needed for it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WishError
from engine.evaluate import damage, journal, libraries
from engine.evaluate.benchmarks import find
from engine.evaluate.beyond import look
from engine.evaluate.job import Item, Job, Place, Settings
from engine.evaluate.judge import Court
from engine.evaluate.lock import alone
from engine.evaluate.origin import Origin
from engine.evaluate.results import RESULTS, SUMMARY, TASKS, conclude
from engine.evaluate.run import execute
from engine.evaluate.summary import Summary
from engine.evaluate.task import Task
from engine.generate import Generation, Request, Sampling, Thinking
from engine.sandbox import Limits

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be other than it was; None leaves a thing as it was."""

    data: str | None = None
    split: str | None = None
    k: tuple[int, ...] | None = None
    thinking: Thinking | None = None
    court: Callable[[Court], Court] = lambda court: court
    """The terms of judgement from those of then."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """Old figures and new ones."""

    before: Record
    """summary.json as it was."""
    now: Summary
    changed: dict[str, int]
    """How many verdicts went from one name to another, e.g. `wrong -> passed`."""

    def as_json(self) -> Record:
        """What `--json` prints."""
        return {"before": self.before, "now": self.now.as_json(), "changed": self.changed}

    def lines(self) -> list[str]:
        """Both, for a person to read."""
        found = self.now.found
        lines = [f"{found.benchmark}: {found.figures.samples:,} samples of {found.figures.tasks:,} tasks"]
        old = self.before["pass_at_k"]
        for k, value in found.figures.pass_at_k.items():
            lines.append(f"  pass@{k:<4} {_share(old.get(str(k)))} -> {_share(value.as_json())}")
        lines += [f"  {count:,} {what}" for what, count in self.changed.items()] or ["  no verdict changed"]
        then = self.before.get("limits") or {}
        for name, value in found.limits.items():
            if then.get(name, value) != value:
                lines.append(f"  {name} {then[name]} -> {value}")
        tail = f"  extraction version {self.before.get('extract_version')} -> {self.now.extract_version}"
        return [*lines, f"{tail}, isolation {self.before.get('isolation')} -> {found.isolation}"]


def rescore(
    folder: Path,
    wanted: Wanted,
    *,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Apply today's extraction and the wanted terms to the answers that an evaluation drew.

    In place, verdicts given under the same terms before are taken from the folder's journal.

    Args:
        folder: `evaluations/NAME` of a run folder.
        wanted: what is to be other than it was.
        out: folder for the new results; None: the evaluation's own, whose journals keep all answers and verdicts.
        progress: told (done, all).

    Raises:
        WishError: the folder holds no finished evaluation, its tasks are not to be had, or the folder for the results
            cannot be written, or is being written by another process.
    """
    with damage.told(str(folder), "have `temper evaluate` write it again"):
        before, results, job, said = _read(folder, wanted, out)

    def tell(phase: str, done: int, whole: int) -> None:
        if progress is not None:
            progress(done, whole)

    with alone(job.place.folder):
        verdicts = execute(job, said, tell)
        now = conclude(job, said, verdicts, look(job, said, verdicts, tell))
    old = {(line["task_id"], line["sample"]): line["verdict"] for line in results}
    new = {
        (line["task_id"], line["sample"]): line["verdict"] for line in journal.read((out or folder) / RESULTS)
    }
    changed = Counter(f"{old[key]} -> {verdict}" for key, verdict in new.items() if old[key] != verdict)
    return Rescored(before, now, dict(changed.most_common()))


def _read(
    folder: Path, wanted: Wanted, out: Path | None
) -> tuple[Record, list[Record], Job, dict[str, Generation]]:
    """The summary and results of then, and the judgement to be held now with the answers it is of."""
    before, results = _summary(folder), list(journal.read(folder / RESULTS))
    if not results:
        raise WishError(f"{folder / RESULTS} is not there", "let `temper evaluate` finish first")
    settings, chat = _settings(before, wanted)
    benchmark = str(before["benchmark"])
    tasks = find(benchmark).load(settings.data, split=settings.split, limit=settings.limit)
    asked = _asked(folder, tasks)
    tasks = [task for task in tasks if task.id in asked]
    lacking = libraries.missing(tasks, settings.court)
    tasks = libraries.judged(tasks, lacking)
    if lacking and out is None:
        raise WishError(
            f"{libraries.told(lacking)}: judged in place, their verdicts would be lost",
            "install them, or give another folder with --out",
        )
    answers = _answers(folder, [line for line in results if line["task_id"] not in lacking])
    by_id = {task.id: task for task in tasks}
    items = [_item(by_id[line["task_id"]], answer, asked, settings, chat=chat) for line, answer in answers]
    place = Place(out or folder, drawn=folder)
    origin = Origin.of(benchmark, settings.data)
    job = Job(tuple(tasks), benchmark, settings, chat, items, place, lacking, origin)
    said = {item.key: Generation.of(answer) for item, (_, answer) in zip(items, answers, strict=True)}
    return before, results, job, said


def _summary(folder: Path) -> Record:
    file = folder / SUMMARY
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted(path.parent for path in folder.glob(f"**/{SUMMARY}"))
        raise WishError(
            f"{file} is not there",
            f"name one of {', '.join(map(str, inside))}"
            if inside
            else "name evaluations/NAME of a run folder",
        ) from None
    if not isinstance(found["pass_at_k"], dict):
        raise ValueError(f"{SUMMARY} has no pass_at_k")
    if "k" not in found["settings"]:
        raise WishError(
            f"{folder} holds verdicts and no answers", "let `temper score` judge its samples again"
        )
    return dict(found)


def _settings(before: Record, wanted: Wanted) -> tuple[Settings, bool]:
    """The settings of then, less what is wanted otherwise; and whether the model was asked in chat."""
    told, chat = _known(Settings, before["settings"]), bool(before["settings"].get("chat"))
    court = _known(Court, told["court"])
    court |= {"limits": Limits(**_known(Limits, court["limits"])), "preload": tuple(court.get("preload", ()))}
    court["packages"] = ()  # what the tasks need is found out anew
    if wanted.thinking and not chat:
        raise WishError(
            "--thinking is given and the model was not asked in chat",
            "leave --thinking out: nothing is dropped",
        )
    told |= {
        "court": wanted.court(Court(**court)),
        "k": wanted.k or tuple(told["k"]),
        "thinking": wanted.thinking or _rule(told.get("thinking")),
        "data": wanted.data or told.get("data"),
        "split": wanted.split or told.get("split", "test"),
    }
    return Settings(**told), chat


def _known(kind: type, told: Record) -> Record:
    """What today's version of a dataclass takes of what was written."""
    return {name: value for name, value in told.items() if name in kind.__dataclass_fields__}  # type: ignore[attr-defined]


def _rule(told: Record | None) -> Thinking:
    """Today's version of the rule of then; before rules were written down it was `auto`'s forerunner."""
    if told is None or told["name"] in ("auto", "keep"):
        return Thinking.of(told["name"] if told else "auto")
    opening, closing = told["pairs"][0]
    return Thinking.of((opening, closing))


def _asked(folder: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """What was put to the model for each task, provided that the tasks are those of then."""
    lines = {line["task_id"]: line for line in journal.read(folder / TASKS)}
    now = {task.id: task.prompt for task in tasks}
    other = [name for name, line in lines.items() if now.get(name) != line["prompt"]]
    if other or not lines:
        raise WishError(
            f"{len(other)} of {len(lines)} tasks of {folder / TASKS} are others in the benchmark as it is found now"
            + (f", such as {other[0]}" if other else ""),
            "give the file and split of then with --data and --split",
        )
    return {name: line.get("asked", line["prompt"]) for name, line in lines.items()}


def _answers(folder: Path, results: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Each line of the results with the journal's record of its answer."""
    by_key: dict[str, Record] = {}
    by_sample: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for path in Place(folder).journals():
        for record in journal.read(path):
            if "key" in record and record["key"] not in by_key:
                by_key[record["key"]] = record
                by_sample[record["task_id"], record["sample"], record["seed"]].append(record)
    found = []
    for line in results:
        # Older results do not name the answer: it is known where only one was drawn.
        drawn = by_sample[line["task_id"], line["sample"], line["seed"]]
        answer = by_key.get(line["key"]) if "key" in line else drawn[0] if len(drawn) == 1 else None
        if answer is None:
            raise WishError(
                f"{folder} holds {len(drawn)} answers of {line['task_id']} sample {line['sample']}, "
                "and which one is in the results is not told",
                "keep its generations-rank*.jsonl together, or evaluate again",
            )
        found.append((line, answer))
    return found


def _item(task: Task, answer: Record, asked: dict[str, str], settings: Settings, *, chat: bool) -> Item:
    stop = () if chat else task.stop
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, stop)
    request = Request(task.id, answer["sample"], asked[task.id], answer["seed"], sampling)
    return Item(task, request, answer["key"])


def _share(estimate: Record | None) -> str:
    value = estimate.get("value") if estimate else None
    return "undefined" if value is None else f"{value:.2%}"
