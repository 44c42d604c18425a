"""Whether a test needs its program's own objects: only plain data can be handed to another process and back.

Read off the text, so it errs: towards the judge apart for a test that looks plain (there, an answer that is no plain
data fails), and towards the program's process for one that names classes, attributes or modules of which more is
known than plain data.
"""

from __future__ import annotations

import ast
import builtins
import random

_PLAIN_TYPES = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, range, random.Random)
_PLAIN_ATTRIBUTES = frozenset(name for kind in _PLAIN_TYPES for name in dir(kind))
_MODULES = frozenset(
    (
        *("bisect", "cmath", "collections", "copy", "functools", "heapq", "itertools", "json", "math"),
        *("operator", "random", "re", "statistics", "string", "typing"),
    )
)
"""What a test may use in another process than its program: modules whose functions take and give plain data and that
hold no state the two would have to share, as sys and the clock do."""
_OBJECTS = frozenset({"ChainMap", "UserDict", "UserList", "UserString", "deque", "namedtuple", "seed"})
"""What those modules hold that is no plain data, or sets a state that the program is to see."""
_AWAITED = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
_BUILTINS = frozenset(dir(builtins))


def needs_objects(tree: ast.Module, asked: frozenset[str]) -> bool:
    """Whether `tree` does more with the names it asks of its candidate than call them with plain data.

    Args:
        tree: the test.
        asked: names it takes from the candidate.
    """
    nodes = list(ast.walk(tree))
    modules = {
        alias.asname or alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    functions = (
        {node.name for node in nodes if isinstance(node, ast.FunctionDef)} | (_BUILTINS - stored) | asked
    )
    classes = _classes(nodes, asked)
    return bool(classes) or any(
        _reaches(node, asked, modules | (asked & _MODULES), functions) for node in nodes
    )


def _reaches(node: ast.AST, asked: frozenset[str], modules: set[str], functions: set[str]) -> bool:
    """Whether one node needs an object of the candidate, or state shared with it."""
    match node:
        case ast.ClassDef() | ast.Global() | ast.Call(func=ast.Call()):
            return True
        case ast.Name(id=name):
            return name in _OBJECTS
        case ast.Attribute(attr="seed") | ast.Attribute(ctx=ast.Store() | ast.Del()):
            return True
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in modules:
            return attribute in _OBJECTS
        case ast.Attribute(attr=attribute):
            return attribute not in _PLAIN_ATTRIBUTES
        case ast.Import(names=names):
            return any(alias.name not in _MODULES for alias in names)
        case ast.ImportFrom(module=module, names=names):
            return module not in _MODULES or any(alias.name in _OBJECTS for alias in names)
        case ast.Call(func=ast.Name(id=name)) if name in asked:
            return any(_is_function(value, functions) for value in _arguments(node))
        case ast.Call(
            func=ast.Name(id="isinstance" | "issubclass" | "exec" | "eval" | "globals" | "vars" | "setattr")
        ):
            return any(
                isinstance(inner, ast.Name) and inner.id in asked
                for value in _arguments(node)[1:]
                for inner in ast.walk(value)
            )
    return isinstance(node, _AWAITED)


def _classes(nodes: list[ast.AST], asked: frozenset[str]) -> set[str]:
    """Names written as those of classes are, but for what is only called and at once compared."""
    sides = [
        side for node in nodes if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)
    ]
    compared = {id(side.func) for side in sides if isinstance(side, ast.Call)}
    names = (node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in compared)
    return {
        name
        for name in names
        if name in asked and name[0].isupper() and "_" not in name and not name.isupper()
    }


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _is_function(node: ast.expr, functions: set[str]) -> bool:
    return isinstance(node, ast.Lambda) or (isinstance(node, ast.Name) and node.id in functions)
