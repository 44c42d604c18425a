"""Programs that read standard input and print: run once for each pair of input and wanted output, compared outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from math import isclose, isinf

from engine.evaluate.task import Run, Steps, Task
from engine.sandbox import Call, Program, Verdict

RELATIVE = ABSOLUTE = 1e-6
"""How far a printed number may be off where `floats` compares."""
EXACT_DIGITS = 15
"""A float holds integers of so many digits; a longer one is compared as it is written."""
SHOWN = 60
_INTEGER = re.compile(r"[+-]?[0-9]+")

CALLED = "...: "
"""What stands in a detail between a call too long to be shown and what came of it."""
_ASK_CHECKER = """import json as _json
_verdict = check(*_json.loads({given!r}))
if not isinstance(_verdict, bool):
    raise TypeError(f"check gave {{_verdict!r}}, neither True nor False")
_verdict"""


def printed(task: Task, program: Program, run: Run) -> Steps:
    """One run of a script, and the verdict on what it printed."""
    verdict = yield replace(program, stdin=run.stdin.encode())
    if not verdict.passed:
        return verdict
    most = task.output_kb * 1024
    if (
        len(verdict.stdout.encode("utf-8", "surrogatepass")) > most - 4
    ):  # what is kept may be cut inside a character
        return replace(verdict, name="output_limit", detail=f"printed more than {task.output_kb} kB")
    if task.checker:
        return (yield from _checked(task.checker, run, verdict))
    if COMPARISONS[task.comparison](verdict.stdout, run.expected):
        return verdict
    told = f"printed {_shown(verdict.stdout)}, wanted {_shown(run.expected)}"
    return replace(verdict, name="wrong", detail=told)


def judge(task: Task, program: Program, single: Callable[[Task, Program, Run], Steps] = printed) -> Steps:
    """One run after another, each decided by `single`.

    The first that fails decides, and the verdict of the last one carries the summed times.
    """
    cpu = wall = memory = 0.0
    verdict = Verdict("incomplete", "the task has no run")
    for number, run in enumerate(task.runs, start=1):
        verdict = yield from single(task, program, run)
        cpu, wall = cpu + verdict.cpu_seconds, wall + verdict.wall_seconds
        memory = max(memory, verdict.peak_memory_mb)
        verdict = replace(verdict, cpu_seconds=cpu, wall_seconds=wall, peak_memory_mb=memory)
        if not verdict.passed:
            return replace(verdict, detail=f"run {number} of {len(task.runs)}: {verdict.detail}")
    return verdict


def room(task_runs: Sequence[Run]) -> int:
    """The kB a right answer may print: twice the longest that is wanted."""
    largest = max((len(run.expected.encode("utf-8", "surrogatepass")) for run in task_runs), default=0)
    return max(64, 2 * largest // 1024 + 1)


def _checked(checker: str, run: Run, verdict: Verdict) -> Steps:
    """What a checker says of a run that came to its end: it runs as a program of its own and only its value counts.

    A checker reads what a stranger printed: one that fails at it has not accepted it. One that cannot be loaded says
    nothing of any program, and none is blamed.
    """
    given = json.dumps([run.stdin, verdict.stdout, run.expected])
    said = yield Program(checker, calls=(Call(_ASK_CHECKER.format(given=given), True),))
    if said.passed:
        return verdict
    called, _, fault = said.detail.rpartition(CALLED)
    if said.name == "wrong":
        return replace(verdict, name="wrong", detail=f"the checker refuses {_shown(verdict.stdout)}")
    if said.name in ("infra", "compile_error") or (said.name == "runtime_error" and not called):
        return replace(verdict, name="infra", detail=f"the task's checker cannot be loaded ({said.detail})")
    told = f"the task's checker failed at {_shown(verdict.stdout)}: {said.name} ({fault})"
    return replace(verdict, name="wrong", detail=told)


def exact(printed: str, wanted: str) -> bool:
    """The same lines; only white space at the ends of lines and of the text may differ."""
    return _lines(printed) == _lines(wanted)


def tokens(printed: str, wanted: str) -> bool:
    """The same words in the same order, however they are spaced: what most judges of contests ask."""
    return printed.split() == wanted.split()


def floats(printed: str, wanted: str) -> bool:
    """As `tokens`, but a number may be off by 1e-6, absolutely or relatively; two integers must be equal."""
    ours, theirs = printed.split(), wanted.split()
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def caseless(printed: str, wanted: str) -> bool:
    """As `tokens` in capitals or not, but a number may be off by 1e-5; two integers must be equal."""
    ours, theirs = printed.lower().split(), wanted.lower().split()
    return len(ours) == len(theirs) and all(map(partial(_close, relative=0.0, absolute=1e-5), ours, theirs))


def decimals(printed: str, wanted: str) -> bool:
    """The same lines less white space around them; a line of numbers only may spell them otherwise (1.0 for 1)."""
    ours, theirs = printed.strip().split("\n"), wanted.strip().split("\n")
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "exact": exact,
    "tokens": tokens,
    "floats": floats,
    "caseless": caseless,
    "decimals": decimals,
}


def _same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except ArithmeticError:  # a word is no number, or one that does not compare
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _close(ours: str, theirs: str, relative: float = RELATIVE, absolute: float = ABSOLUTE) -> bool:
    if ours == theirs:
        return True
    try:
        if _INTEGER.fullmatch(theirs) and (_INTEGER.fullmatch(ours) or len(theirs) > EXACT_DIGITS):
            return Decimal(ours) == Decimal(theirs)
        mine, wanted = float(ours), float(theirs)
        # 1e999 is as far from a number of a thousand digits as 7 is, whatever a float makes of the two
        if isinf(mine) or isinf(wanted):
            return mine == wanted and ours.strip("+-").isalpha() and theirs.strip("+-").isalpha()
        return isclose(mine, wanted, rel_tol=relative, abs_tol=absolute)
    except (ValueError, ArithmeticError):  # nan is close to nothing
        return False


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
