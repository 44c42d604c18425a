"""Tests whose expected values are the reference's answers: computed once in the sandbox, then kept.

The reference runs where strangers' programs run, the answers come back as text, and the check compares them in the
judge: the program under test never sees them.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from engine.errors import TemperError, WishError
from engine.evaluate.task import Task
from engine.sandbox import Limits, Pool, Program

LIMITS = Limits(cpu_seconds=60.0, wall_seconds=180.0, memory_mb=4096, disk_mb=256)
"""Of a reference over all inputs of its task."""
_ANSWERS = "answers.txt"

_LONG = 4000
"""Characters of an answer above which the test holds its digest: some are numbers and texts of many megabytes."""

_DIGEST = """
import hashlib

WIDE = 2**63


def _plain(value):
    # Equal values alike: 2.0 and 2, True and 1. In decimal, a number of a million digits would take a minute.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, (list, tuple)):
        name = type(value).__name__
        if all(type(part) in (int, float, bool) and -WIDE < part < WIDE for part in value):  # millions, at times
            return name + repr([int(part) if part == int(part) else part for part in value])
        return [name, *map(_plain, value)]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(repr(_plain(part)) for part in value)]
    if isinstance(value, dict):
        return ["dict", *sorted(repr((_plain(key), _plain(part))) for key, part in value.items())]
    return repr(value)


def _digest(value):
    return hashlib.sha256(repr(_plain(value)).encode("utf-8", "surrogatepass")).hexdigest()
"""

_CHECK = """
class Long(str):
    __slots__ = ()


def _all_floats(value):
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(part, float) for part in value)
    return isinstance(value, float)


def _near(got, wanted, tolerance):
    if isinstance(wanted, (list, tuple)):
        return len(got) == len(wanted) and all(_near(*pair, tolerance) for pair in zip(got, wanted))
    if got == wanted or wanted in (inf, -inf):
        return got == wanted
    return abs(got - wanted) <= tolerance + 1e-07 * abs(wanted)


def _same(got, wanted):
    if isinstance(wanted, Long):
        return _digest(got) == wanted
    if got == wanted:
        return True
    tolerance = TOLERANCE or (1e-06 if _all_floats(wanted) else 0)
    return bool(tolerance) and type(got) is type(wanted) and _near(got, wanted, tolerance)


def check(candidate):
    for number, ((part, arguments), wanted) in enumerate(zip(INPUTS, ANSWERS)):
        got = candidate(*arguments)
        assert RULE, f"{part} input, number {number + 1}"
"""
"""EvalPlus's comparison: equal (a long answer by its text), or floats of the same shape within its tolerance, as
numpy's allclose has it."""

_ASK = """
import copy


def _written(value):
    try:
        text = repr(value)
    except ValueError:
        text = ""
    if text and (len(text) <= LONG or _all_floats(value)):
        return text
    return f"Long({_digest(value)!r})"


written = [_written(REFERENCE(*copy.deepcopy(arguments))) for _, arguments in INPUTS]
with open(FILE, "w", encoding="utf-8") as file:
    file.write("[" + ", ".join(written) + "]")
"""


def check(
    inputs: Sequence[tuple[str, list[Any]]], reference: str, *, tolerance: float, rule: str = ""
) -> str:
    """Source of a `check(candidate)` that lacks only ANSWERS, the reference's (see `answered`).

    Args:
        reference: what answers; its digest stands in the test, so that another reference is another benchmark.
        inputs: (part of the benchmark, arguments) of each call.
        tolerance: absolute, between floats; 0: 1e-6 where only floats are expected, as EvalPlus has it.
        rule: an expression over `arguments`, `got` and `wanted` that decides instead of equality.
    """
    if not inputs:
        raise WishError("a task has no inputs, so any program would pass it", "mend or remove its line")
    digest = hashlib.sha256(reference.encode()).hexdigest()
    head = f"# Answers are those of the reference with sha256 {digest}.\n"
    head += f'inf, nan = float("inf"), float("nan")\nINPUTS = {list(inputs)!r}\nTOLERANCE = {tolerance!r}\n'
    return head + _DIGEST + _CHECK.replace("RULE", rule or "_same(got, wanted)")


def answered(program: Program, task: Task) -> Program:
    """The program with the reference's answers in its test."""
    answers = _answers(task.prompt + task.reference, task.entry_point, task.test or "")
    return replace(program, test=f"{task.test}\n\nANSWERS = {answers}\n")


@lru_cache(maxsize=4096)
def _answers(source: str, name: str, test: str) -> str:
    """What the reference gives for INPUTS, as the source of a list; kept from one run to the next."""
    key = hashlib.sha256(json.dumps([source, name, test]).encode()).hexdigest()
    kept = _folder() / f"{key}.txt"
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        answers = _ask(source, name, test)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{key}.{os.getpid()}.partial")
        partial.write_text(answers, encoding="utf-8")
        os.replace(partial, kept)
    except OSError:
        pass  # a home that cannot be written to costs the seconds again
    return answers


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "temper" / "oracles"


def _ask(source: str, name: str, test: str) -> str:
    """Run the reference on every input, each time on a copy of its own."""
    ask = _ASK.replace("REFERENCE", name).replace("FILE", repr(_ANSWERS)).replace("LONG", str(_LONG))
    verdict = _pool().run(Program(f"{test}\n\n{source}\n\n{ask}", collect=(_ANSWERS,)), LIMITS)
    if not verdict.passed or not verdict.files:
        raise TemperError(
            f"the reference of {name} gives no answers: {verdict.name} ({verdict.detail})",
            "the benchmark's file is not what it should be, or this machine is too small: try another copy",
        )
    return verdict.files[0].data.decode("utf-8")


@cache
def _pool() -> Pool:
    """The one worker that runs references: to open it takes longer than most of them."""
    pool = Pool(1)
    atexit.register(pool.close)
    return pool
