"""The calls a test is sure to make, read off its text: a program can answer them without being asked one by one.

Only the straight beginning of `check` is read, and of it only calls whose arguments are literals: what a test makes
of an answer cannot change them. A test that goes another way in spite of this is run again, one question at a time.
"""

from __future__ import annotations

import ast
import marshal
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_STRAIGHT = (ast.Assert, ast.Expr, ast.Assign, ast.Pass)
_FORKED = (ast.Lambda, ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MOST = 1000

Ahead = tuple[list[Any], dict[str, Any]]
"""One call's positional and named arguments."""


class _Unsure(Exception):
    """What follows depends on more than the text."""


@lru_cache(maxsize=512)
def calls_ahead(test: str) -> bytes:
    """The arguments of the calls ahead, marshalled, since each run needs objects of its own; empty for none."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return b""
    found: list[Ahead] = []
    check = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if len(check) == 1 and len(check[0].args.args) == 1:
        try:
            for statement in check[0].body:
                found += _calls(statement, check[0].args.args[0].arg)
        except _Unsure:
            pass
    return marshal.dumps(found[:_MOST]) if found else b""


def _calls(statement: ast.stmt, name: str) -> list[Ahead]:
    """The calls of one statement in the order they are made. Raises _Unsure when that order is not plain."""
    if not isinstance(statement, _STRAIGHT):
        raise _Unsure
    calls = [node for node in _in_order(statement) if isinstance(node, ast.Call) and _names(node.func, name)]
    uses = sum(_names(node, name) for node in ast.walk(statement))
    if uses != len(calls):
        raise _Unsure  # it is handed on, or bound to another name
    return [_arguments(call) for call in calls]


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement as they are evaluated, operands before what uses them."""
    if isinstance(node, _FORKED) or (isinstance(node, ast.Compare) and len(node.ops) > 1):
        raise _Unsure
    if isinstance(node, ast.Assert):
        children: list[ast.AST] = [node.test]  # the message is only made when it fails
    elif isinstance(node, ast.Assign):
        if any(not isinstance(target, ast.Name) for target in node.targets):
            raise _Unsure
        children = [node.value]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _in_order(child)
    yield node


def _names(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _arguments(call: ast.Call) -> Ahead:
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Unsure from None
    if len(named) != len(call.keywords):
        raise _Unsure
    return positional, named


def same_call(arguments: list[Any], named: dict[str, Any], ahead: Ahead) -> bool:
    """Whether a test makes the very call that was read off its text, types and order included."""
    try:
        return marshal.dumps([arguments, named], 2) == marshal.dumps(list(ahead), 2)
    except ValueError:
        return False
