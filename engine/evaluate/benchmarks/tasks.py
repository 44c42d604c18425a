"""Tasks gathered from rows: each id once, so many and no more, and at least one."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import WishError
from engine.evaluate.task import Task


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
