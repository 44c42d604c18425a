"""From a reference's text to the form it is judged in: in a judge apart where it can be, else beside the program.

What is chosen depends on the reference, not on what the candidate does: no program can ask for the weaker form.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from engine.evaluate.code_eval.objects import needs_objects
from engine.generate import parsed
from engine.sandbox import Program

_BUILTINS = frozenset(dir(builtins))
_LOADS_WELL = "pass"
_WHOLE = """
def check(candidate):
    space = globals()
    space.update(dict.fromkeys({names!r}, candidate))
    exec(compile({text!r}, "<test>", "exec"), space)
"""
"""At the level of a module, so that a reference's names mean what they mean after its candidate."""


def program(candidate: str, reference: str) -> Program:
    """How `candidate` is judged by `reference`: as if one were run after the other in one namespace."""
    read = _read(reference)
    if read is None:
        # It is no source by itself, as one that begins in the middle of a function: one text, which must load.
        return Program(f"{candidate}\n{reference}", test=_LOADS_WELL, together=True)
    source = candidate + _lent(candidate, read)
    if not read.tree.body:
        return Program(source, test=_LOADS_WELL, together=True)
    shadowed = frozenset() if read.asked else read.builtins & _defined(candidate)
    if read.objects or len(shadowed) > 1:
        return beside(source, reference)
    if shadowed or read.check is None:
        name = next(iter(shadowed), read.called)
        return Program(source, entry_point=name, test=_WHOLE.format(text=reference, names=tuple(shadowed)))
    return replace(read.check, source=source)


def beside(source: str, reference: str) -> Program:
    """The reference run in the program's own process, statement by statement."""
    return Program(source, test=reference, together=True)


@dataclass(frozen=True, slots=True)
class _Reference:
    """What a reference's text tells."""

    tree: ast.Module
    asked: frozenset[str]
    """Names it uses and neither defines nor finds among the builtins: the candidate's."""
    builtins: frozenset[str]
    """Builtins it uses: where it asks for nothing else, one that the candidate defines is what is tested."""
    called: str
    """One of those it asks for and calls; the sandbox hands that one over unasked."""
    objects: bool
    """Whether it needs more of the candidate than plain data given to functions and got back."""
    check: Program | None
    """As a `check(candidate)` whose calls the sandbox can read off; None where it has another shape."""


@lru_cache(maxsize=1024)
def _read(text: str) -> _Reference | None:
    tree = parsed(text)
    if tree is None or any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body):
        return None  # such an import is right only at the start of the whole text
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_bound(tree))
    asked = frozenset(used - _BUILTINS)
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = {name.id for name in calls if isinstance(name, ast.Name)} & asked
    return _Reference(
        tree=tree,
        asked=asked,
        builtins=frozenset(used & _BUILTINS),
        called=min(called, default="check"),
        objects=needs_objects(tree, asked),
        check=_shaped(tree, asked),
    )


def _bound(tree: ast.AST) -> Iterator[str]:
    """Names bound anywhere in it."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.alias():
                yield node.asname or node.name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name


def _shaped(tree: ast.Module, asked: frozenset[str]) -> Program | None:
    try:
        return _checked(tree, asked) or _asserted(tree, asked)
    except RecursionError:  # a sum of a thousand terms can be read, and not be written again
        return None


def _checked(tree: ast.Module, asked: frozenset[str]) -> Program | None:
    """HumanEval's shape: definitions, and `check(NAME)` at the end."""
    match tree.body:
        case [*before, ast.Expr(ast.Call(ast.Name("check"), [ast.Name(name)], []))] if name in asked:
            if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in before):
                return Program("", entry_point=name, test=ast.unparse(ast.Module(before, [])))
    return None


class _Renamed(ast.NodeTransformer):
    """One name as `candidate`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("candidate", node.ctx) if node.id == self.name else node


def _asserted(tree: ast.Module, asked: frozenset[str]) -> Program | None:
    """Asserts of one function, none of which binds a name."""
    if len(asked) != 1 or not all(isinstance(node, ast.Assert) for node in tree.body) or set(_bound(tree)):
        return None
    (name,) = asked
    renamed = [_Renamed(name).visit(node) for node in ast.parse(ast.unparse(tree)).body]
    body = "\n".join(f"    {ast.unparse(node)}" for node in renamed)
    return Program("", entry_point=name, test=f"def check(candidate):\n{body}\n")


def _lent(candidate: str, read: _Reference) -> str:
    """The functions and imports of a reference that a candidate uses and does not define.

    None that asserts: what a program is lent it can read.
    """
    lent: list[ast.stmt] = [
        node
        for node in read.tree.body
        if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)
        and not any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
    ]
    names = {name for node in lent for name in _names_of(node)}
    if not any(name in candidate for name in names):
        return ""
    tree = parsed(candidate)
    if tree is None:
        return ""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_bound(tree))
    return "\n" + ast.unparse(ast.Module(lent, [])) + "\n" if used & names else ""


def _names_of(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)


@lru_cache(maxsize=16)
def _defined(candidate: str) -> frozenset[str]:
    """Names a candidate binds."""
    tree = parsed(candidate)
    return frozenset(_bound(tree)) if tree else frozenset()
