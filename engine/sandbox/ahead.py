"""What a test is sure to do, read off its text: the calls it makes, and often the answers with which it passes.

So a program can answer without being asked one by one, and the judge need only be troubled with answers that are not
the expected ones to the byte. Only the straight beginning of `check` is read, and of it only calls whose arguments are
literals: what a test makes of an answer cannot change them. A test that goes another way in spite of this is run
again, one question at a time.
"""

from __future__ import annotations

import ast
import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import codec

_STRAIGHT = (ast.Assert, ast.Expr, ast.Assign, ast.Pass)
_FORKED = (ast.Lambda, ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MOST = 1000

Ahead = tuple[list[Any], dict[str, Any]]
"""One call's positional and named arguments."""


class _Unsure(Exception):
    """What follows depends on more than the text."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a test's text tells before it is run."""

    calls: bytes = b""
    """The arguments of the calls ahead, marshalled, since each run needs objects of its own; empty for none."""
    answers: tuple[bytes, ...] = ()
    """The answers, as they would be sent, with which the test is sure to pass; empty where it does more than compare.
    Another answer may pass as well (1 equals 1.0): then the test must be asked."""


@lru_cache(maxsize=1024)
def foresee(test: str) -> Foreseen:
    """What can be read off `test`, source that defines `check`."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Foreseen()
    check = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if len(check) != 1 or len(check[0].args.args) != 1:
        return Foreseen()
    found: list[Ahead] = []
    name = check[0].args.args[0].arg
    try:
        for statement in check[0].body:
            found += _calls(statement, name)
    except _Unsure:
        return Foreseen(_packed(found))
    return Foreseen(_packed(found), _answers(tree, check[0], name) if len(found) <= _MOST else ())


def _packed(found: list[Ahead]) -> bytes:
    return marshal.dumps(found[:_MOST]) if found else b""


def _answers(tree: ast.Module, check: ast.FunctionDef, name: str) -> tuple[bytes, ...]:
    beside = [node for node in tree.body if node is not check]
    if not _is_plain(check) or not all(_does_nothing(node) for node in beside):
        return ()
    try:
        wanted = [_wanted(node, name) for node in check.body if not _does_nothing(node)]
        return tuple(codec.Encoder(lenient=True).encode([value, []]) for value in wanted)
    except (_Unsure, ValueError):
        return ()


def _is_plain(check: ast.FunctionDef) -> bool:
    """Whether defining it does nothing, and handing it the candidate is all it takes to call it."""
    ours, others = check.args.args, check.args
    beside = (others.posonlyargs, others.kwonlyargs, others.defaults, others.vararg, others.kwarg)
    return not (check.decorator_list or check.returns or any(beside) or ours[0].annotation) and len(ours) == 1


def _does_nothing(node: ast.stmt) -> bool:
    """A docstring, a constant, or an assertion of one."""
    match node:
        case ast.Pass() | ast.Expr(ast.Constant()):
            return True
        case ast.Assert(ast.Constant(value)):
            return bool(value)
        case ast.Assign([ast.Name(id=name)], value):
            return name != "check" and _is_literal(value)
    return False


def _is_literal(node: ast.expr) -> bool:
    try:
        _literal(node)
    except _Unsure:
        return False
    return True


def _wanted(node: ast.stmt, name: str) -> object:
    """The value of the one call in an assertion with which it is sure to hold."""
    match node:
        case ast.Assert(ast.Compare(left, [ast.Eq()], [right])):
            call, other = (left, right) if _is_call(left, name) else (right, left)
            if _is_call(call, name):
                return _literal(other)
        case ast.Assert(ast.Compare(call, [ast.Is()], [ast.Constant(True | False | None as value)])):
            if _is_call(call, name):
                return value
        case ast.Assert(ast.UnaryOp(ast.Not(), call)) if _is_call(call, name):
            return False
        case ast.Assert(call) if _is_call(call, name):
            return True
    raise _Unsure


def _is_call(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and _names(node.func, name)


def _calls(statement: ast.stmt, name: str) -> list[Ahead]:
    """The calls of one statement in the order they are made. Raises _Unsure when that order is not plain."""
    if not isinstance(statement, _STRAIGHT):
        raise _Unsure
    calls = [node for node in _in_order(statement) if isinstance(node, ast.Call) and _names(node.func, name)]
    heard = (
        statement.test if isinstance(statement, ast.Assert) else statement
    )  # a message tells only of a failure
    uses = sum(_names(node, name) for node in ast.walk(heard))
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
    positional = [_literal(argument) for argument in call.args]
    named = {str(k.arg): _literal(k.value) for k in call.keywords if k.arg}
    if len(named) != len(call.keywords):
        raise _Unsure
    return positional, named


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Unsure from None


def same_call(arguments: list[Any], named: dict[str, Any], ahead: Ahead) -> bool:
    """Whether a test makes the very call that was read off its text, types and order included."""
    try:
        return marshal.dumps([arguments, named], 2) == marshal.dumps(list(ahead), 2)
    except ValueError:
        return False
