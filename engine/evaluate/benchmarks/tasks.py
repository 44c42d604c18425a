"""What benchmarks share: tasks gathered from rows, each id once, what they import, and judgement by a single run."""

from __future__ import annotations

import ast
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine.errors import WishError
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program

Row = tuple[str, Any]
"""Where a row stands (file and line), and the row."""

_STRANGE = (
    *(TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    zlib.error,
    *(RecursionError, MemoryError, SyntaxError),  # of Python's parser, for code that is nested without end
)


def collect(
    rows: Iterable[Row], make: Callable[[Any, str], Task | None], *, limit: int | None, source: str
) -> list[Task]:
    """The tasks of rows, in order.

    Args:
        rows: each with its place.
        make: the task of a row and its place; None for a row that is left out.
        limit: first this many only.
        source: what was read, in words.

    Raises:
        WishError: a row is no task (its place is named), an id was seen before, or there is no task.
    """
    tasks: dict[str, Task] = {}
    for place, row in rows:
        task = _made(row, place, make)
        if task is None:
            continue
        if task.id in tasks:
            raise WishError(
                f"{place}: task_id {task.id!r} was seen before", "give each task an id of its own"
            )
        tasks[task.id] = task
        if limit is not None and len(tasks) == limit:
            break
    if not tasks:
        raise WishError(f"{source} holds no task", "name another file or split")
    return list(tasks.values())


def _made(row: Any, place: str, make: Callable[[Any, str], Task | None]) -> Task | None:
    """The task of a row; a row of a shape that nobody foresaw is told in a sentence too."""
    try:
        task = make(row, place)
        for run in task.runs if task else ():
            run.stdin.encode()  # what no program can be given is not found out in the middle of a judgement
    except _STRANGE as error:
        raise WishError(
            f"{place}: not a task of this benchmark ({type(error).__name__}: {str(error)[:200]})",
            "mend or remove the line",
        ) from error
    if task and not (task.id + task.group).isprintable():
        raise WishError(
            f"{place}: task_id {task.id!r} or its group holds characters that do not print", "rename it"
        )
    return task


def tasks_file(source: str | None, *, name: str, where: str) -> str:
    """The file of a benchmark that is not to be had on the hub.

    Raises:
        WishError: none is named; `where` says what to give.
    """
    if source is None:
        raise WishError(f"{name} needs a file of tasks", f"{where} (evaluate.data, or --data)")
    return source


def demand_only_test(split: str, *, name: str) -> None:
    """Raise WishError for a split of a benchmark that has one alone, which `validation` gives too."""
    if split not in ("test", "validation"):
        raise WishError(f"{name} has no split {split!r}", "leave the split at test")


def demand_fields(row: Any, place: str, fields: Mapping[str, type | tuple[type, ...]], *, of: str) -> None:
    """Raise WishError unless a row is an object with these fields, each of its type; `of` names the format."""
    if not isinstance(row, dict):
        raise WishError(f"{place}: a {type(row).__name__}, not a JSON object", "write one object a line")
    wrong = [name for name, kind in fields.items() if not isinstance(row.get(name), kind)]
    if wrong:
        other = "not a text" if set(fields.values()) == {str} else "of another type"
        raise WishError(
            f"{place}: not a task in {of}, {', '.join(wrong)} missing or {other}",
            f"give every line the fields {', '.join(fields)}",
        )


def asserts(name: str, tests: Sequence[str]) -> str:
    """Asserts as a `check`: they run in the judge, where only the answers of `name` come from the program."""
    # A test of several lines is written anew, so that indenting it reaches into no string.
    plain = [ast.unparse(ast.parse(test)) if "\n" in test else test for test in tests]
    body = [textwrap.indent(test, "    ") for test in (f"{name} = candidate", *plain)]
    return "\n".join(("def check(candidate):", *body)) + "\n"


def third_party(*sources: str, named: Iterable[str] = ()) -> tuple[str, ...]:
    """Modules, besides the standard library's, that sources import anywhere; those that are no Python name none.

    Args:
        sources: Python.
        named: further modules.
    """
    found = {name.partition(".")[0] for name in named}
    for source in sources:
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return tuple(sorted(found - sys.stdlib_module_names - {"__future__"}))


def judge(task: Task, program: Program) -> Steps:
    """One run decides."""
    return (yield program)
