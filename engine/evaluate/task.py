"""One task of a benchmark: what to ask, and how to judge the answer."""

from __future__ import annotations

from dataclasses import dataclass

from engine.sandbox import Call


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, a completion that passes, and hidden tests (a `check` function or value calls).

    `group` is a path: results are reported for `compositions/level2` and for `compositions`. `stop` holds
    texts that end a completion; a chat answer ignores them.
    """

    id: str
    prompt: str
    entry_point: str
    reference: str
    test: str | None = None
    calls: tuple[Call, ...] = ()
    group: str = ""
    stop: tuple[str, ...] = ()
    suffix: str = ""
    """What follows the completion, for tasks that ask for the middle of a program."""
