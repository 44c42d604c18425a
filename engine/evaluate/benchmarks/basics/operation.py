"""An operation: a phrase that asks for something, and the one canonical way to write it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from string import Template
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a program can do.

    `takes` and `gives` are types (`"ints"`, `"str"`, ...) for operations that chain, or a form and one of its
    slots (`"loop"`, `"guard"`) for parts of a longer program. Phrases and code are templates: `$k` stands for
    the constant, other names for the parts of the form around it. `split` other than "train" makes it a
    held-out family: training never shows it.
    """

    name: str
    takes: str
    gives: str
    phrases: tuple[str, ...]
    code: str
    constants: tuple[int | str, ...] = ()
    before: str = ""
    split: Split = "train"

    def fill(self, rng: random.Random) -> Step:
        """Choose a wording and a constant."""
        constant = rng.choice(self.constants) if self.constants else None
        phrase = rng.choice(self.phrases)
        return Step(
            self, _put(phrase, constant), _put(self.code, constant), _put(self.before, constant), constant
        )


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its wording and constant chosen; `before` is a line its form sets up beforehand."""

    operation: Operation
    phrase: str
    code: str
    before: str
    constant: int | str | None


def operation(
    room: str,
    takes: str,
    name: str,
    gives: str,
    phrases: tuple[str, ...],
    code: str,
    constants: tuple[int | str, ...] = (),
    split: Split = "train",
    before: str = "",
) -> Operation:
    """One row of a room's table; rooms fix the first two arguments with `partial`."""
    return Operation(f"{room}.{name}", takes, gives, phrases, code, constants, before, split)


def _put(template: str, constant: int | str | None) -> str:
    return template if constant is None else Template(template).safe_substitute(k=constant)
