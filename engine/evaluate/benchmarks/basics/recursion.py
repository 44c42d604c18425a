"""Recursion on a whole number: a bound, what to return there, the step, and how results combine."""

from __future__ import annotations

import random
from functools import partial

from engine.evaluate.benchmarks.basics.form import Form
from engine.evaluate.benchmarks.basics.numbers import SMALL
from engine.evaluate.benchmarks.basics.operation import operation

_op = partial(operation, "recursion", "recursion")


def _call(rng: random.Random, name: str, number: int) -> str:
    return f"{name}({number if number < 9 else rng.randint(9, 40)})"


RECURSION = Form(
    name="recursion",
    header="def $name(n):",
    sentence="If n is $bound, return $stop, else $join the result for $step.",
    body="    if n $bound:\n        return $stop\n    return $join\n",
    names=("f", "g", "h", "solve"),
    call=_call,
    weight=4,
    slots={
        "bound": (
            _op("below", "bound", ("below $k",), "< $k", SMALL),
            _op("at_most", "bound", ("at most $k",), "<= $k", SMALL),
        ),
        "stop": (
            _op("constant", "stop", ("$k",), "$k", tuple(range(1, 20))),
            _op("same", "stop", ("n",), "n"),
            _op("twice", "stop", ("twice n",), "n * 2"),
            _op("squared", "stop", ("n squared",), "n * n", split="validation"),
        ),
        "join": (
            _op("add", "join", ("add n to",), "n + $name($step)"),
            _op("count", "join", ("add 1 to",), "1 + $name($step)"),
            _op("digit", "join", ("add the last digit to",), "n % 10 + $name($step)"),
            _op("minus", "join", ("take from n",), "n - $name($step)"),
            _op("double", "join", ("double",), "2 * $name($step)"),
            _op(
                "larger",
                "join",
                ("take the larger of the last digit and",),
                "max(n % 10, $name($step))",
                split="test",
            ),
        ),
        "step": (
            _op("less", "step", ("n minus $k",), "n - $k", (1, 2, 3, 4)),
            _op("half", "step", ("half of n",), "n // 2"),
            _op("tenth", "step", ("n without its last digit",), "n // 10"),
            _op("third", "step", ("a third of n",), "n // 3", split="test"),
        ),
    },
)

FORMS = (RECURSION,)
