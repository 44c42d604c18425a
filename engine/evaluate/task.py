"""One task of a benchmark: what to ask, and how to judge the answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from engine.sandbox import Call, Program, Verdict

Steps = Generator[Program, Verdict, Verdict]
"""A judgement: hands out the next program to run, is sent what came of it, and returns the verdict in the end."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program that reads standard input: what it is given, and what it must print."""

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
    """How what a run prints is compared: exact, tokens, or floats (see `benchmarks.stdio`)."""
    language: str = "python"
    cpu_seconds: float = 0.0
    """What a right answer may need of CPU time; the limit asked for is raised to it."""
    output_kb: int = 64
    """What a right answer may print."""


Ask = Callable[[Task], tuple[str, tuple[str, ...]]]
"""What is put to the model for a task, and the texts that end its answer."""
