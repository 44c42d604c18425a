"""Operations on one whole number `n`."""

from __future__ import annotations

from functools import partial

from engine.evaluate.benchmarks.basics.operation import operation

SMALL = tuple(range(2, 10))
WIDE = (*SMALL, *range(10, 40, 3))

_op = partial(operation, "number", "int")

OPERATIONS = (
    _op("add", "int", ("add $k",), "n + $k", WIDE),
    _op("subtract", "int", ("subtract $k",), "n - $k", WIDE),
    _op("multiply", "int", ("multiply by $k",), "n * $k", SMALL),
    _op("remainder", "int", ("take the remainder by $k",), "n % $k", WIDE),
    _op("square", "int", ("square it",), "n * n"),
    _op("negate", "int", ("negate it",), "-n"),
    _op("absolute", "int", ("take the absolute value",), "abs(n)"),
    _op("digit_sum", "int", ("add up the digits",), "sum(int(c) for c in str(abs(n)))"),
    _op("text", "str", ("turn it into text",), "str(n)"),
    _op("digits", "ints", ("list the digits",), "[int(c) for c in str(abs(n))]"),
    _op("cube", "int", ("cube it",), "n * n * n", split="test"),
    _op("last_digit", "int", ("take the last digit",), "abs(n) % 10", split="test"),
    _op("distance", "int", ("take the distance to $k",), "abs(n - $k)", WIDE, split="validation"),
    _op("binary", "str", ("write it in binary",), 'format(n, "b")', split="validation"),
)
