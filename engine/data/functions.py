"""Python functions by what they do, not by how they are named or laid out: hashes of normalised syntax trees.

Two functions are the same here when their trees are, after the names of the function, its arguments, its locals
and the module's own definitions are numbered by first use, and docstrings, comments, layout and annotations are
left out. Names from outside, attributes and constants stay. This is clone detection by hashed syntax trees (Baxter
et al., "Clone Detection Using Abstract Syntax Trees", ICSM 1998) for exact and renamed clones.
"""

from __future__ import annotations

import ast
import hashlib
import re
import textwrap
import warnings
from collections.abc import Iterator

FEWEST_NODES = 25
"""Functions of fewer normalised tree nodes say nothing: different people write the same ones."""

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.M | re.S)
_PYTHON = {"", "python", "py", "python3", "py3"}
_HEADER = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def references(text: str) -> dict[bytes, str]:
    """The functions at the top of a program, as hash and name; small ones are left out."""
    return _hashes(_tops(text))


def written(text: str) -> dict[bytes, str]:
    """All Python functions in a text, methods and nested ones too, as hash and name; small ones are left out.

    The text may be a program, or prose with programs in it, fenced or not.
    """
    return _hashes(_everywhere(text)) if "def " in text else {}


def _tops(text: str) -> Iterator[tuple[Function, set[str]]]:
    """Functions at the top of each program in a text, with the names that the programs define."""
    modules = _modules(text)
    own = {name for module in modules for name in _own(module)}
    yield from ((node, own) for module in modules for node in module.body if isinstance(node, Function))


def _everywhere(text: str) -> Iterator[tuple[Function, set[str]]]:
    """The same with methods and nested functions."""
    modules = _modules(text)
    own = {name for module in modules for name in _own(module)}
    yield from ((node, own) for module in modules for node in ast.walk(module) if isinstance(node, Function))


def _own(module: ast.Module) -> set[str]:
    return {node.name for node in module.body if isinstance(node, Function | ast.ClassDef)}


def _modules(text: str) -> list[ast.Module]:
    """The programs in a text: all of it, else its fenced blocks, else each `def` with the lines under it."""
    if whole := _parse(text):
        return [whole]
    blocks = [block for _, label, block in _FENCE.findall(text) if label.lower() in _PYTHON]
    found = [_parse(block) for block in blocks]
    # A block that does not parse, or code outside any fence, is read function by function.
    rest = [_FENCE.sub("", text)] + [block for block, tree in zip(blocks, found, strict=True) if tree is None]
    found += [_parse(part) for each in rest for part in _definitions(each)]
    return [tree for tree in found if tree is not None]


def _definitions(text: str) -> Iterator[str]:
    """Each `def` with the lines indented under it."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        first, at = at, at + 1
        if (header := _HEADER.match(lines[first])) is None:
            continue
        # A signature over several lines ends with its bracket under the `def`.
        while at < len(lines) and (_indent(lines[at]) > len(header[1]) or lines[at].strip()[:1] in ("", ")")):
            at += 1
        yield "".join(lines[first:at])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parse(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(textwrap.dedent(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _hashes(functions: Iterator[tuple[Function, set[str]]]) -> dict[bytes, str]:
    found = {}
    for node, own in functions:
        shape = _Shape(node, own)
        try:
            said = shape.say(node)
        except RecursionError:
            continue
        if shape.nodes >= FEWEST_NODES:
            found[hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()] = node.name
    return found


class _Shape:
    """Writes a function's tree down with its own names numbered, and counts the nodes."""

    def __init__(self, function: Function, own: set[str]) -> None:
        self.nodes = 0
        self._bound = own | _bound(function)
        self._numbers: dict[str, int] = {}

    def say(self, node: ast.AST) -> str:
        if isinstance(node, ast.expr_context):
            return ""
        self.nodes += 1
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            # With its annotation gone it is a plain assignment.
            return f"Assign([{self.say(node.target)}],{self.say(node.value)})"
        parts = []
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_comment", "type_params", "kind", "lineno"):
                continue
            if name == "body" and isinstance(node, Function | ast.ClassDef):
                value = _without_docstring(value)
            parts.append(self._value(name, value))
        return f"{type(node).__name__}({','.join(parts)})"

    def _value(self, field: str, value: object) -> str:
        if isinstance(value, list):
            return f"[{','.join(self._value(field, each) for each in value)}]"
        if isinstance(value, ast.AST):
            return self.say(value)
        if isinstance(value, str) and field in ("id", "arg", "name", "asname", "names", "rest"):
            return self._name(value)
        return repr(value)

    def _name(self, name: str) -> str:
        if name not in self._bound:
            return repr(name)
        return f"#{self._numbers.setdefault(name, len(self._numbers))}"


def _bound(function: Function) -> set[str]:
    """Names a function gives itself: its own, arguments, and whatever its body assigns, defines or imports."""
    names = {function.name}
    for node in ast.walk(function):
        match node:
            case ast.arg():
                names.add(node.arg)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                names.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                names.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
    return names


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return body[1:]
    return body
