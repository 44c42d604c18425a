"""One task of a benchmark: what to ask, and how to judge the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from engine.sandbox import Call, Program, Verdict

Steps = Generator[Program, Verdict, Verdict]
"""A judgement: hands out the next program to run, is sent what came of it, and returns the verdict in the end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program: what it is given on standard input, and what it must print.

    Of a task that calls a function: a JSON list of its arguments, and the JSON of its value.
    """

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, a completion that passes, and hidden tests (a `check` function, value calls, or runs of a script).

    `group` is a path: results are reported for `compositions/level2` and for `compositions`. `stop` holds
    texts that end a completion; a chat answer ignores them.
    """

    id: str
    prompt: str
    entry_point: str
    reference: str
    """A completion that passes; empty where the benchmark publishes none."""
    test: str | None = None
    calls: tuple[Call, ...] = ()
    group: str = ""
    stop: tuple[str, ...] = ()
    suffix: str = ""
    """What follows the completion, for tasks that ask for the middle of a program."""
    context: str = ""
    """Trusted source whose helpers the test may use, where that is not the prompt."""
    runs: tuple[Run, ...] = ()
    comparison: str = "tokens"
    """How what a run prints is compared: a name in `benchmarks.stdio.COMPARISONS`."""
    checker: str = ""
    """Trusted source of a `check(stdin, printed, expected)` that says True or False instead of a comparison."""
    language: str = "python"
    cpu_seconds: float = 0.0
    """What a right answer may need of CPU time; the limit asked for is raised to it."""
    memory_mb: int = 0
    """What a right answer may need of memory; the limit asked for is raised to it."""
    output_kb: int = 64
    """What a right answer may print."""
    requires: tuple[str, ...] = ()
    """Modules, besides the standard library's, without which it cannot be judged (see `libraries`)."""
    question: str = ""
    """What a chat model is asked; empty: to complete the prompt."""


Ask = Callable[[Task], tuple[str, tuple[str, ...]]]
"""What is put to the model for a task, and the texts that end its answer."""
