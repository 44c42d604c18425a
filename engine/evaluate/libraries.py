"""Libraries that tasks need: which ones are not here, which tasks that leaves out, and what programs may import."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from engine.errors import WishError
from engine.evaluate.judge import Court
from engine.evaluate.task import Task
from engine.sandbox import Limits, Program

LIMITS = Limits(cpu_seconds=120.0, wall_seconds=360.0, memory_mb=4096, disk_mb=256)
"""Of one import; the largest libraries take some ten seconds."""
NAMED = 10
"""How many libraries a sentence names."""

Missing = Mapping[str, tuple[str, ...]]
"""What a task lacks, by its id."""


def missing(tasks: Sequence[Task], court: Court) -> dict[str, tuple[str, ...]]:
    """What the tasks lack that need something: each library they name is imported once, in the sandbox.

    Raises:
        WishError: this kernel does not grant the isolation asked for.
    """
    names = sorted({name for task in tasks for name in task.requires})
    here = [name for name in names if _is_installed(name)]
    absent = set(names) - set(here)
    if here:
        with _with(court, here).pool() as pool:
            verdicts = pool.run_many((Program(f"import {name}") for name in here), LIMITS)
            absent |= {name for name, verdict in zip(here, verdicts, strict=True) if not verdict.passed}
    lacking = {task.id: tuple(name for name in task.requires if name in absent) for task in tasks}
    return {task: names for task, names in lacking.items() if names}


def judged(tasks: Sequence[Task], lacking: Missing) -> list[Task]:
    """The tasks that lack nothing.

    Raises:
        WishError: there is none.
    """
    left = [task for task in tasks if task.id not in lacking]
    if tasks and not left:
        raise WishError(
            f"none of the {len(tasks)} tasks can be judged here: libraries missing: {_counted(lacking)}",
            "install them in this environment",
        )
    return left


def opened(court: Court, tasks: Sequence[Task]) -> Court:
    """The court in which programs may import what these tasks need, besides the modules it preloads."""
    return _with(court, {name for task in tasks for name in task.requires})


def _with(court: Court, names: Iterable[str]) -> Court:
    return replace(court, packages=tuple(sorted(names)))


def told(lacking: Missing) -> str:
    """Which tasks are left out, and why, in one sentence."""
    tasks = (
        "1 task is not judged and is" if len(lacking) == 1 else f"{len(lacking)} tasks are not judged and are"
    )
    return f"{tasks} in no figure, libraries missing: {_counted(lacking)}; install them in this environment"


def counted(lacking: Missing) -> dict[str, int]:
    """Tasks that lack each library, the most missed first."""
    return dict(Counter(name for names in lacking.values() for name in names).most_common())


def _counted(lacking: Missing) -> str:
    parts = [f"{name} ({count})" for name, count in counted(lacking).items()]
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(parts[:NAMED]) + more


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
