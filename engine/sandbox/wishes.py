"""What a program must be to be taken on: each mistake of a caller is named before anything is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath

from ..errors import WishError
from .verdict import MOST_FILES, Call, File, Program

_LONGEST_NAME = 500
_LONGEST_NAMES = 8192
"""Bytes of a program's names together: an order to a jail is one packet, and JSON may write a byte as six."""


def check_program(program: Program) -> None:
    """Raise WishError for what cannot be judged as it is, whatever the program does."""
    _check_types(program)
    if program.test is None:
        if program.context:
            raise WishError("a program has a context and no test", "the context is what its test may use")
        return
    if program.calls:
        raise WishError("a program has both calls and a test", "give one of them")
    if program.language != "python":
        return
    problem, defines, alone = _read(program.test)
    if problem:
        raise WishError(f"a test is not Python: {problem}", "mend the test")
    if not program.together and not defines:
        raise WishError("a test does not define check(candidate)", "define it, or run the test together")
    if not program.together and not program.entry_point:
        raise WishError("a test needs entry_point", "name the function it is handed, or run it together")
    if program.together and defines and alone and not program.entry_point:
        raise WishError(
            "a test defines check and nothing calls it", "give entry_point, the function it is handed"
        )


def _check_types(program: Program) -> None:
    if not isinstance(program, Program):
        raise WishError(f"a {type(program).__name__} is no Program", "wrap it: Program(source)")
    texts = {
        "source": program.source,
        "test": program.test or "",
        "entry_point": program.entry_point or "",
        "context": program.context,
    }
    for name, value in texts.items():
        if type(value) is not str:
            raise WishError(f"a program's {name} is a {type(value).__name__}", "give text (str)")
    if type(program.stdin) is not bytes:
        raise WishError(f"a program's stdin is a {type(program.stdin).__name__}", "give bytes: text.encode()")
    _check_all("calls", program.calls, Call, "Call(expression, expected)")
    _check_all("files", program.files, File, "File(name, data)")
    _check_all("arguments", program.arguments, str, "text")
    _check_all("collect", program.collect, str, "text")
    for call in program.calls:
        if type(call.expression) is not str:
            raise WishError(f"a call's expression is a {type(call.expression).__name__}", "give text (str)")
    for file in program.files:
        if type(file.data) is not bytes:
            raise WishError(f"file {file.name!r} holds a {type(file.data).__name__}", "give bytes")


def _check_all(name: str, values: Iterable[object], kind: type, form: str) -> None:
    if not isinstance(values, tuple | list):
        raise WishError(f"a program's {name} are a {type(values).__name__}", f"give a tuple of {form}")
    for value in values:
        if not isinstance(value, kind):
            raise WishError(f"a program's {name} hold a {type(value).__name__}", f"give {form}")


@lru_cache(maxsize=1024)
def _read(test: str) -> tuple[str, bool, bool]:
    """What is wrong with a test's text; whether it defines check; whether it does not use that itself."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__, False, False
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif not isinstance(node, ast.Expr):
            bound |= {
                n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            bound |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
    uses = any(isinstance(n, ast.Name) and n.id == "check" for n in ast.walk(tree))
    return "", "check" in bound, not uses


def check_files(names: Iterable[str], collected: int) -> None:
    """Raise WishError for a file whose name leads out of the program's folder, or too many of them."""
    names = list(names)
    for name in names:
        _check_name(name)
    if sum(len(name.encode()) for name in names) > _LONGEST_NAMES:
        raise WishError(f"the names of {len(names)} files are too long together", "use shorter ones")
    if collected > MOST_FILES:
        raise WishError(f"{collected} files are to be collected", f"name at most {MOST_FILES}")


def _check_name(name: str) -> None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise WishError(f"a program's file may not be named {name!r}", "use a name that is text") from None
    path = PurePosixPath(name)
    out = path.is_absolute() or ".." in path.parts or not path.name
    if out or "\0" in name or length > _LONGEST_NAME:
        raise WishError(
            f"a program's file may not be named {name!r}", "use a relative path inside the program's folder"
        )
