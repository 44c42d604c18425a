"""Are the hidden tests sharp? Slightly wrong programs that they must fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from types import CodeType

from engine.evaluate.benchmarks.basics.compose import Problem

_NUMBER = re.compile(r"\d+")
_COMPARISON = re.compile(r" (<=|<|>) ")
_NEIGHBOUR = {"<=": "<", "<": "<=", ">": ">="}


def slips(problem: Problem) -> Iterator[str]:
    """Completions with one thing left out, one number off by one, or one border off by one."""
    yield from problem.weaker
    text = problem.completion
    for number in _NUMBER.finditer(text):
        yield text[: number.start()] + str(int(number[0]) + 1) + text[number.end() :]
    for sign in _COMPARISON.finditer(text):
        yield text[: sign.start(1)] + _NEIGHBOUR[sign[1]] + text[sign.end(1) :]


def passes(source: str, expressions: Sequence[str], expected: Sequence[object]) -> bool:
    """Whether a program gives every expected value, of the very same type."""
    code = compile(source, "<solution>", "exec")
    for expression, value in zip(expressions, expected, strict=True):
        try:
            got = answer(code, expression)
        except Exception:  # a slip may raise anything, and then it does not pass
            return False
        if not _same(got, value):
            return False
    return True


def answer(source: str | CodeType, expression: str) -> object:
    """Run one of our own programs here and evaluate a call on it; a model's text never comes this way."""
    space: dict[str, object] = {}
    exec(source, space)
    *statements, last = ast.parse(expression).body
    if not isinstance(last, ast.Expr):
        raise ValueError(f"the call does not end in an expression: {expression!r}")
    exec(compile(ast.Module(statements, []), "<call>", "exec"), space)
    result: object = eval(compile(ast.Expression(last.value), "<call>", "eval"), space)
    return result


def _same(one: object, other: object) -> bool:
    """Equality of plain data that tells 1 from True, also inside lists and dicts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other
