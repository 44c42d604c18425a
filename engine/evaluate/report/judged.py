"""One evaluation read back from its folder, and what that folder does not tell."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.evaluate import journal
from engine.evaluate.efficiency import EFFICIENCY
from engine.evaluate.passk import estimate, pass_hat_k
from engine.evaluate.results import RESULTS, SUMMARY, TASKS
from engine.evaluate.summary import Scored, tally, taxonomy

BASE = "-base"
"""Ending of the name of an evaluation that judged the model a run started from."""
KS = (1, 10, 100)
"""The k of pass@k where a folder has verdicts and no summary."""
NEEDED = ("benchmark", "tasks", "pass_at_k", "groups", "verdicts")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """One evaluation, as its folder tells it."""

    name: str
    summary: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    results: dict[tuple[str, int], Line]
    missing: tuple[str, ...] = ()
    """Sentences: what the folder lacks, and what the report cannot show for that."""
    hashes: Mapping[str, str] | None = None
    """sha256 of its files, by name."""
    ratios: tuple[Line, ...] = ()
    """Lines of efficiency.jsonl, where it was measured."""

    @property
    def of_start(self) -> bool:
        """Whether the model the run started from was judged."""
        return self.name.endswith(BASE)

    def by_task(self) -> dict[str, list[Line]]:
        """Lines of results.jsonl by task, by number of sample."""
        lines: dict[str, list[Line]] = defaultdict(list)
        for _, line in sorted(self.results.items(), key=lambda pair: pair[0][1]):
            lines[line["task_id"]].append(line)
        return dict(lines)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(scored, passed) samples of each task."""
        return tally(_scored(self.results))


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is an evaluation itself, or what `temper score --out` left."""
    return (folder / SUMMARY).is_file() or (folder / RESULTS).is_file()


def read_judged(folder: Path) -> Judged:
    """Read an evaluation.

    Raises:
        ValueError: one of its files is damaged.
    """
    results = {(line["task_id"], line["sample"]): line for line in journal.read(folder / RESULTS)}
    if not all(isinstance(line.get("verdict"), str) for line in results.values()):
        raise ValueError(f"{RESULTS} has a line without a verdict")
    ratios = tuple(journal.read(folder / EFFICIENCY))
    if not all({"task_id", "cpu_ratio", "memory_ratio"} <= line.keys() for line in ratios):
        raise ValueError(f"{EFFICIENCY} has a line without its ratios")
    tasks = {task["task_id"]: task for task in journal.read(folder / TASKS)}
    summary = read_object(folder / SUMMARY) or _counted(results)
    lacking = [name for name in NEEDED if name not in summary]
    if lacking:
        raise ValueError(f"{SUMMARY} has no {lacking[0]}")
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (RESULTS, SUMMARY, TASKS)
        if (folder / name).is_file()
    }
    if summary.get("results_sha256", hashes.get(RESULTS)) != hashes.get(RESULTS):
        raise ValueError(
            f"{SUMMARY} is not of the {RESULTS} beside it: whoever wrote them was stopped, run it again"
        )
    return Judged(
        name=folder.name,
        summary=summary,
        tasks=tasks,
        results=results,
        missing=tuple(_missing(folder, results)),
        hashes=hashes,
        ratios=ratios,
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file; empty where there is no file.

    Raises:
        ValueError: the file holds something else.
    """
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def _scored(results: Mapping[tuple[str, int], Line]) -> list[Scored]:
    return [Scored(task, sample, line["verdict"]) for (task, sample), line in results.items()]


def _counted(results: Mapping[tuple[str, int], Line]) -> dict[str, Any]:
    """A summary of verdicts alone, over the tasks they are of."""
    scored = _scored(results)
    counts = tally(scored)
    numbers = [counts.get(task, (0, 0)) for task in dict.fromkeys(task for task, _ in results)]
    least = min((n for n, _ in numbers), default=0)
    ks = [k for k in KS if k <= max(least, 1)]
    verdicts = taxonomy(scored)
    return {
        "benchmark": "an unnamed benchmark",
        "tasks": len(numbers),
        "samples": sum(n for n, _ in numbers),
        "passed": sum(c for _, c in numbers),
        "pass_at_k": {str(k): estimate(numbers, k).as_json() for k in ks},
        "pass_hat_k": {str(k): estimate(numbers, k, of_task=pass_hat_k).as_json() for k in ks if k > 1},
        "groups": {},
        "verdicts": verdicts,
        "unscored": verdicts.get("infra", 0),
    }


def _missing(folder: Path, results: Mapping[tuple[str, int], Line]) -> list[str]:
    said = []
    if not (folder / SUMMARY).is_file():
        said.append(
            f"no {SUMMARY}: pass@k is counted over the tasks in {RESULTS}; the benchmark's name, settings and hash "
            "are unknown"
        )
    if not results:
        said.append(f"no {RESULTS}: tasks and programs cannot be shown")
    elif not any("completion" in line for line in results.values()):
        said.append(f"{RESULTS} holds no programs: verdicts and stderr alone are shown")
    if results and not (folder / TASKS).is_file():
        said.append(f"no {TASKS}: prompts and references, and so differences, cannot be shown")
    return said
