"""Small classes: how the state starts, what `put` does to it, what `get` returns."""

from __future__ import annotations

import random
from functools import partial

from engine.evaluate.benchmarks.basics.form import Form
from engine.evaluate.benchmarks.basics.numbers import SMALL
from engine.evaluate.benchmarks.basics.operation import operation

NAMES = ("Box", "Cell", "Store", "Unit")
SENTENCE = "$name(n) starts $start, put(x) $put, get() returns $get."
BODY = (
    "    def __init__(self, n):\n        self.v = $start\n"
    "    def put(self, x):\n        $put\n"
    "    def get(self):\n        return $get\n"
)

_number = partial(operation, "cell", "cell")
_list = partial(operation, "store", "store")


def _call(rng: random.Random, name: str, number: int) -> str:
    puts = [f"b.put({rng.randint(-9, 20)})" for _ in range(min(number, 4))]
    return "\n".join((f"b = {name}({rng.randint(-5, 12)})", *puts, "b.get()"))


_form = partial(Form, header="class $name:", sentence=SENTENCE, body=BODY, names=NAMES, call=_call, weight=4)

NUMBER = _form(
    name="cell",
    slots={
        "start": (
            _number("minus", "start", ("at n minus $k",), "n - $k", SMALL),
            _number("plus", "start", ("at n plus $k",), "n + $k", SMALL),
            _number("times", "start", ("at n times $k",), "n * $k", SMALL),
        ),
        "put": (
            _number("add", "put", ("adds x",), "self.v = self.v + x"),
            _number("subtract", "put", ("subtracts x",), "self.v = self.v - x"),
            _number("scaled", "put", ("adds $k times x",), "self.v = self.v + $k * x", SMALL),
            _number("largest", "put", ("keeps the larger of it and x",), "self.v = max(self.v, x)"),
            _number("replace", "put", ("replaces it by x",), "self.v = x"),
            _number(
                "smallest", "put", ("keeps the smaller of it and x",), "self.v = min(self.v, x)", split="test"
            ),
        ),
        "get": (
            _number("value", "get", ("it",), "self.v"),
            _number("more", "get", ("it plus $k",), "self.v + $k", SMALL),
            _number("less", "get", ("it minus $k",), "self.v - $k", SMALL),
            _number("square", "get", ("its square",), "self.v * self.v"),
            _number("over", "get", ("if it is above $k",), "self.v > $k", SMALL),
            _number("opposite", "get", ("its negative",), "-self.v", split="validation"),
        ),
    },
)

LIST = _form(
    name="store",
    slots={
        "start": (
            _list("plus", "start", ("with a list of n plus $k",), "[n + $k]", SMALL),
            _list("after", "start", ("with a list of $k and n",), "[$k, n]", SMALL),
            _list("with", "start", ("with a list of n and $k",), "[n, $k]", SMALL),
        ),
        "put": (
            _list("append", "put", ("appends x",), "self.v = self.v + [x]"),
            _list("front", "put", ("puts x in front",), "self.v = [x] + self.v"),
            _list("more", "put", ("appends x plus $k",), "self.v = self.v + [x + $k]", SMALL),
            _list("times", "put", ("appends x times $k",), "self.v = self.v + [x * $k]", SMALL),
            _list("around", "put", ("puts x at both ends",), "self.v = [x] + self.v + [x]", split="test"),
        ),
        "get": (
            _list("all", "get", ("the list",), "self.v"),
            _list("sum", "get", ("the sum",), "sum(self.v)"),
            _list("first", "get", ("the first number",), "self.v[0]"),
            _list("last", "get", ("the last number",), "self.v[-1]"),
            _list("sorted", "get", ("the numbers sorted",), "sorted(self.v)"),
            _list("largest", "get", ("the largest",), "max(self.v)"),
            _list(
                "spread",
                "get",
                ("the largest minus the smallest",),
                "max(self.v) - min(self.v)",
                split="test",
            ),
        ),
    },
)

FORMS = (NUMBER, LIST)
