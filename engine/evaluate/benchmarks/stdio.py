"""Programs that read standard input and print: run once for each pair of input and wanted output, compared outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isclose

from engine.evaluate.task import Steps, Task
from engine.sandbox import Program, Verdict

RELATIVE = ABSOLUTE = 1e-6
"""How far a printed number may be off where `floats` compares."""
SHOWN = 60


def judge(task: Task, program: Program) -> Steps:
    """One run after another; the first that fails decides, and the verdict of the last one carries the summed times."""
    cpu = wall = memory = 0.0
    verdict = Verdict("incomplete", "the task has no run")
    for number, run in enumerate(task.runs, start=1):
        verdict = yield replace(program, stdin=run.stdin.encode())
        cpu, wall = cpu + verdict.cpu_seconds, wall + verdict.wall_seconds
        memory = max(memory, verdict.peak_memory_mb)
        verdict = replace(verdict, cpu_seconds=cpu, wall_seconds=wall, peak_memory_mb=memory)
        where = f"run {number} of {len(task.runs)}"
        if not verdict.passed:
            return replace(verdict, detail=f"{where}: {verdict.detail}")
        if not COMPARISONS[task.comparison](verdict.stdout, run.expected):
            told = f"{where}: printed {_shown(verdict.stdout)}, wanted {_shown(run.expected)}"
            return replace(verdict, name="wrong", detail=told)
    return verdict


def exact(printed: str, wanted: str) -> bool:
    """The same lines; only white space at the ends of lines and of the text may differ."""
    return _lines(printed) == _lines(wanted)


def tokens(printed: str, wanted: str) -> bool:
    """The same words in the same order, however they are spaced: what most judges of contests ask."""
    return printed.split() == wanted.split()


def floats(printed: str, wanted: str) -> bool:
    """As `tokens`, but a wanted number may be off by 1e-6, absolutely or relatively; nan is no number."""
    ours, theirs = printed.split(), wanted.split()
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


COMPARISONS: dict[str, Callable[[str, str], bool]] = {"exact": exact, "tokens": tokens, "floats": floats}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _close(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return isclose(float(ours), float(theirs), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except ValueError:
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
