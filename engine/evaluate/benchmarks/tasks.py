"""What benchmarks share: tasks gathered from rows, each id once, and the judgement by a single run."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Sequence

from engine.errors import WishError
from engine.evaluate.task import Steps, Task
from engine.sandbox import Program


def collect(found: Iterable[tuple[str, Task]], *, limit: int | None, source: str) -> list[Task]:
    """The tasks of (place, task), in order.

    Args:
        found: each task, and where it stands.
        limit: first this many only.
        source: what was read, in words.

    Raises:
        WishError: an id was seen before, or there is no task.
    """
    tasks: dict[str, Task] = {}
    for place, task in found:
        if task.id in tasks:
            raise WishError(
                f"{place}: task_id {task.id!r} was seen before", "give each task an id of its own"
            )
        tasks[task.id] = task
        if limit is not None and len(tasks) == limit:
            break
    if not tasks:
        raise WishError(f"{source} holds no task", "name a file with one JSON object a line")
    return list(tasks.values())


def asserts(name: str, tests: Sequence[str]) -> str:
    """Asserts as a `check`: they run in the judge, where only the answers of `name` come from the program."""
    # A test of several lines is written anew, so that indenting it reaches into no string.
    plain = [ast.unparse(ast.parse(test)) if "\n" in test else test for test in tests]
    body = [textwrap.indent(test, "    ") for test in (f"{name} = candidate", *plain)]
    return "\n".join(("def check(candidate):", *body)) + "\n"


def judge(task: Task, program: Program) -> Steps:
    """One run decides."""
    return (yield program)
