"""What contests share: a question as a docstring, whole programs as answers, functions judged by their values."""

from __future__ import annotations

import ast
import json
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from inspect import getsource
from typing import Any

from engine.evaluate.benchmarks import stdio
from engine.evaluate.task import Run, Steps, Task
from engine.sandbox import Call, Program

STOP = ('\n"""', "\n```")
READ_AND_PRINT = "Read standard input and print the answer to standard output."
IMPORTS = (
    "import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, operator, random, re"
    ", string, sys, time; from typing import *; from bisect import *; from collections import *"
    "; from functools import *; from heapq import *; from itertools import *; from math import ceil, comb"
    ", factorial, floor, gcd, inf, isqrt, log, log2, sqrt\n"
)
"""What stands before every program where a benchmark's own judge has such a line; one line, as line numbers go."""
SHOWN = 60
_FUTURE = re.compile(r"^from[ \t]+__future__\b", re.M)
_LONG = 4000
"""Digits of a number above which `int` may refuse to read it (the limit is 4300)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a benchmark's own judge grants to the value of a call, besides Python's `==`."""

    tuples: int
    """Down to which depth a tuple counts as a list."""
    wrapped: bool = False
    """Whether a wanted list of one element also stands for that element."""
    integer_keys: bool = False
    """Whether an object whose keys are all spelled as integers is a dict of integers; JSON has only texts."""


def prompt_of(question: str, last: str) -> str:
    """The question as a docstring that any text fits into, with what is to be written as its `last` line or lines."""
    text = f"{question.strip()}\n\n{last.strip()}".replace("\r\n", "\n").replace('"""', "'''")
    return f'{"r" if chr(92) in text else ""}"""\n{text}\n"""\n'


def starting(starter: str, name: str) -> str:
    """What is to be written of a task that calls a function."""
    return f"Complete this code:\n\n{starter.strip()}" if starter.strip() else f"Define the function {name}."


def prompt(task: Task) -> str:
    """What a base model continues: the question; a whole program follows."""
    return task.prompt


def program(task: Task, completion: str) -> Program:
    """The program to judge; its test is each run's own (see `judge`)."""
    return Program(task.prompt + completion)


def judge(rules: Rules, task: Task, program: Program) -> Steps:
    """One run after another, of a script, or of a function where the task names one; the first that fails decides."""
    if not _FUTURE.search(program.source):
        program = replace(program, source=IMPORTS + program.source)
    if not task.entry_point:
        return (yield from stdio.judge(task, program))
    return (yield from stdio.judge(task, program, partial(_called, rules)))


def first_that_parses(sources: Iterable[str]) -> str:
    """The first of some solutions that is Python 3; empty where none is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in sources:
            try:
                ast.parse(source)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return source.replace("\r\n", "\n").rstrip("\n") + "\n"
    return ""


def read_json(text: str, *, integer_keys: bool = False) -> Any:
    """The value of a JSON text; numbers may be of any length, as some tasks' are. Raises ValueError."""
    return json.loads(text, parse_int=_read_int, object_hook=_keyed if integer_keys else None)


def write_json(value: Any) -> str:
    """The inverse of `read_json`."""
    longest = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(longest)


def _read_int(digits: str) -> int:
    return int(Decimal(digits) if len(digits) > _LONG else digits)


def _called(rules: Rules, task: Task, program: Program, run: Run) -> Steps:
    """One call; the value crosses as plain data and is compared outside the program, which never has the wanted one.

    Where two values are right, the call is made again for the second.
    """
    wanted = [_plain(read_json(run.expected, integer_keys=rules.integer_keys), rules.tuples)]
    if rules.wrapped and isinstance(wanted[0], list) and len(wanted[0]) == 1:
        wanted.insert(0, wanted[0][0])
    for value in wanted:
        verdict = yield replace(
            program, calls=(Call(_expression(rules, task.entry_point, run.stdin), value),)
        )
        if verdict.name != "wrong":
            break
    # The sandbox names a call by its first words, which are the same for all of these.
    told = verdict.detail.split(stdio.CALLED, 1)
    shown = run.stdin[1:-1] if len(run.stdin) <= SHOWN else run.stdin[1:SHOWN] + "..."
    return replace(verdict, detail=f"{task.entry_point}({shown}): {told[-1]}" if told[1:] else verdict.detail)


def _expression(rules: Rules, name: str, arguments: str) -> str:
    """The call, as what is evaluated beside the program; the rest is a namespace of its own, as answers name their
    variables `list` and `max`."""
    hook = ", object_hook=_keyed" if rules.integer_keys else ""
    own = f"import json, sys\nsys.set_int_max_str_digits(0)\n{getsource(_keyed)}\n\n{getsource(_plain)}"
    own += f"\n\ndef _apply(call, arguments):\n    return _plain(call(*json.loads(arguments{hook})), {rules.tuples})\n"
    call = f'Solution().{name} if "Solution" in globals() else {name}'
    return f'_own = {{}}\nexec({own!r}, _own)\n_own["_apply"]({call}, {arguments!r})'


def _keyed(entries: dict[str, object]) -> object:
    try:
        return {int(key): value for key, value in entries.items()}
    except ValueError:
        return entries


def _plain(value: object, tuples: int) -> object:
    # Runs beside the program too. Python's == is what these benchmarks compare with: True is 1, and 1.0 is 1.
    if isinstance(value, (list, tuple)):
        items = [_plain(item, tuples - 1) for item in value]
        return tuple(items) if isinstance(value, tuple) and tuples <= 0 else items
    if isinstance(value, dict):
        return {key: _plain(item, tuples - 1) for key, item in value.items()}
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value
