"""Candidates with their references judged in the sandbox, and the figures in `code_eval`'s shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from engine.errors import PreflightError
from engine.evaluate.code_eval.reference import beside, program
from engine.evaluate.judge import ATTEMPTS, Court, judge
from engine.evaluate.passk import pass_at_k
from engine.evaluate.task import Steps, Task
from engine.sandbox import NOT_PLAIN, Limits, Program, Verdict

Results = dict[int, list[tuple[int, dict[str, Any]]]]
"""By index of the task, (completion_id, what came of it), as `code_eval` gives them."""

WALL_FACTOR = 3
"""The timeout is CPU time, so that load changes no verdict; a program that sleeps has so many times as long."""
_TIMED_OUT = ("cpu_limit", "wall_limit")


def run(
    predictions: Sequence[Sequence[str]],
    references: Sequence[str],
    *,
    workers: int,
    timeout: float,
    preload: tuple[str, ...] = (),
    level: str | None = None,
) -> Results:
    """Judge every candidate of every task.

    Raises:
        WishError: this kernel does not grant `level`, or a module cannot be preloaded.
        PreflightError: the sandbox itself failed on a candidate, again and again: it has no verdict.
    """
    asked = [
        _Candidate(task, number, text, reference)
        for task, (texts, reference) in enumerate(zip(predictions, references, strict=True))
        for number, text in enumerate(texts)
    ]
    limits = Limits(cpu_seconds=timeout, wall_seconds=WALL_FACTOR * timeout)
    court = Court(limits, level, workers, preload=preload)
    verdicts = dict(judge(_References(), len(asked), lambda index: asked[index].case(), court))
    results: Results = defaultdict(list)
    for index, candidate in enumerate(asked):
        results[candidate.task].append((candidate.number, candidate.told(verdicts[index])))
    return results


def pass_at_ks(results: Results, ks: Iterable[int]) -> dict[str, float]:
    """Mean pass@k over the tasks that have candidates, for each k that none of them has too few for."""
    counts = [(len(told), sum(one["passed"] for _, one in told)) for told in results.values()]
    found = {}
    for k in ks:
        values = [value for n, c in counts if (value := pass_at_k(n, c, k)) is not None]
        if values and len(values) == len(counts):
            found[f"pass@{k}"] = fsum(values) / len(values)
    return found


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One program and the reference that judges it."""

    task: int
    number: int
    text: str
    reference: str

    def case(self) -> tuple[Task, Program]:
        task = Task(id=str(self.task), prompt="", entry_point="", reference="", test=self.reference)
        return task, program(self.text, self.reference)

    def told(self, verdict: Verdict) -> dict[str, Any]:
        if verdict.name == "infra":
            raise PreflightError(
                f"the sandbox failed {ATTEMPTS} times on candidate {self.number} of task {self.task}: {verdict.detail}",
                "run again; `temper sandbox probe` shows what this machine grants",
            )
        result = "timed out" if verdict.name in _TIMED_OUT else f"failed: {verdict.detail or verdict.name}"
        return {
            "task_id": self.task,
            "passed": verdict.passed,
            "result": "passed" if verdict.passed else result,
            "completion_id": self.number,
        }


class _References:
    """Judges by a reference's text."""

    def judge(self, task: Task, program: Program) -> Steps:
        """In the judge; a reference found to hand over what cannot leave it, in the program's own process."""
        verdict = yield program
        if verdict.name == "infra" and verdict.detail.startswith(NOT_PLAIN) and not program.together:
            verdict = yield beside(program.source, task.test or "")
        return verdict
