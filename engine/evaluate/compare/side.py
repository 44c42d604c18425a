"""One finished evaluation as a side of a comparison: its verdicts, and by which text and program each came to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import protocol
from engine.errors import WishError
from engine.evaluate import damage, journal
from engine.evaluate.job import Place
from engine.evaluate.majority import digest
from engine.evaluate.report.judged import is_evaluation, read_judged
from engine.evaluate.results import RESULTS, SUMMARY

IN_FORCE = "in force: "
"""Before the names of the limits that held, where tasks raised those asked for."""
FINISH = "run it again: what is done is not done again"


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sample: its verdict, and what is known of how it came about. Hashes are short ones."""

    verdict: str
    text: str | None
    """Hash of the text the program was found in; None where nothing tells it."""
    program: str | None
    """Hash of the program; None in folders of before it was written."""
    completion: str | None
    """Hash of the completion that was found, where the folder holds it."""

    @property
    def scored(self) -> bool:
        """Whether it counts: the sandbox's own failures do not."""
        return self.verdict != "infra"

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.verdict == "passed"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two evaluations."""

    folder: Path
    benchmark: str | None
    """None in a folder without a summary."""
    benchmark_sha256: str | None
    settings: Mapping[str, Any]
    """What decided its result, by dotted name; empty without a summary."""
    tasks: Mapping[str, Mapping[int, Sampled]]
    """Samples of each task by number, in the order of results.jsonl."""

    def scored(self, task: str) -> dict[int, Sampled]:
        """The task's samples that count."""
        return {number: sample for number, sample in self.tasks[task].items() if sample.scored}

    @property
    def samples(self) -> int:
        """All that count."""
        return sum(sample.scored for samples in self.tasks.values() for sample in samples.values())

    @property
    def unscored(self) -> int:
        """Samples the sandbox failed on."""
        return sum(map(len, self.tasks.values())) - self.samples

    def as_json(self) -> dict[str, Any]:
        """Where it lies and how much of it there is."""
        return {
            "folder": str(self.folder),
            "tasks": len(self.tasks),
            "samples": self.samples,
            "unscored": self.unscored,
            "settings": dict(self.settings),
        }


def read_side(folder: Path) -> Side:
    """Read an evaluation, what `temper score --out` wrote, or a run folder with one evaluation.

    Raises:
        WishError: there is none, it is not finished, or one of its files is damaged.
    """
    place = _evaluation(folder)
    if not (place / RESULTS).is_file():
        raise WishError(f"{place} holds no {RESULTS}, so the evaluation did not end", FINISH)
    with damage.told(str(place), FINISH):
        judged = read_judged(place)
        told = (place / SUMMARY).is_file()
        texts = _texts(place, judged.results.values())
        tasks: dict[str, dict[int, Sampled]] = defaultdict(dict)
        for (task, number), line in judged.results.items():
            tasks[str(task)][int(number)] = _sampled(line, texts)
        wanted = judged.summary["samples"] + judged.summary["unscored"]
        settings = dict(_settings(judged.summary)) if told else {}
        sha256 = judged.summary.get("benchmark_sha256") if told else None
        if not isinstance(sha256, str | None):
            raise ValueError(f"benchmark_sha256 is {sha256!r}")
    if wanted != len(judged.results):
        raise WishError(
            f"{place / RESULTS} holds {len(judged.results)} samples and {SUMMARY} counts {wanted}", FINISH
        )
    if not tasks:
        raise WishError(f"{place / RESULTS} holds no sample", FINISH)
    return Side(
        folder=place,
        benchmark=judged.summary["benchmark"] if told else None,
        benchmark_sha256=sha256,
        settings=settings,
        tasks=dict(tasks),
    )


def _evaluation(folder: Path) -> Path:
    """The folder itself, or the one evaluation of a run folder."""
    if is_evaluation(folder) or any(Place(folder).journals()):
        return folder
    found = sorted(path.parent for path in (folder / protocol.EVALUATIONS).glob(f"*/{SUMMARY}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(place.relative_to(folder)) for place in found)
        raise WishError(f"{folder} holds {len(found)} evaluations ({names})", "name one of them")
    raise WishError(
        f"{folder} holds no finished evaluation",
        "name a folder of `temper evaluate`, or what `temper score --out` wrote",
    )


def _sampled(line: dict[str, Any], texts: Mapping[tuple[Any, ...], set[str]]) -> Sampled:
    journalled = texts.get(_drawn(line), set())
    completion = line.get("completion")
    return Sampled(
        verdict=line["verdict"],
        # A journal that answers of other weights were added to may hold several; then none is the one.
        text=line.get("text_sha256") or (next(iter(journalled)) if len(journalled) == 1 else None),
        program=line.get("program_sha256"),
        completion=digest(completion) if isinstance(completion, str) else None,
    )


def _texts(place: Path, lines: Any) -> dict[tuple[Any, ...], set[str]]:
    """Hashes of the journals' texts, for folders whose results do not tell them."""
    texts: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    if all("text_sha256" in line for line in lines):
        return texts
    for path in Place(place).journals():
        for record in journal.read(path):
            if isinstance(record.get("text"), str):
                texts[_drawn(record)].add(digest(record["text"]))
    return texts


def _drawn(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("task_id", "sample", "seed", "tokens", "finish"))


def _settings(summary: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    settings = {name: value for name, value in summary.get("settings", {}).items() if name != "k"}
    court = settings.pop("court", {})
    yield from _leaves("", settings | court)
    yield from _leaves(IN_FORCE, summary.get("limits") or {})
    for name in ("isolation", "extract_version"):
        if name in summary:
            yield name, summary[name]


def _leaves(above: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(f"{above}{name}.", value)
        else:
            yield above + name, value
