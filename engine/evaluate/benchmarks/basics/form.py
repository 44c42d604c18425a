"""A form: the skeleton of a longer program, with slots that operations fill."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template

from engine.evaluate.benchmarks.basics.operation import Operation, Step


@dataclass(frozen=True, slots=True)
class Form:
    """A program with slots.

    `slots` maps each slot to the operations that fit it, in the order of the combination key. `header`, `sentence`
    and `body` are templates over the slots; `$name` is the entry point. `before` lines of the operations land at
    `$before`. `call(rng, name, number)` writes the number-th hidden test, the first ones being edge cases. Forms with
    more operations have a larger `weight` among the draws.
    """

    name: str
    header: str
    sentence: str
    body: str
    names: tuple[str, ...]
    slots: Mapping[str, tuple[Operation, ...]]
    call: Callable[[random.Random, str, int], str]
    weight: int = 1

    def write(self, steps: Mapping[str, Step], name: str) -> tuple[str, str]:
        """The prompt and the reference completion for one filling of the slots."""
        phrases = {slot: step.phrase for slot, step in steps.items()}
        codes = {slot: step.code for slot, step in steps.items()}
        codes["before"] = "".join(step.before for step in steps.values())
        sentence = resolve(self.sentence, {**phrases, "name": name})
        header = resolve(self.header, {"name": name})
        prompt = f'{header}\n    """{sentence}"""\n'
        return prompt, resolve(self.body, {**codes, "name": name})


def resolve(template: str, values: Mapping[str, str]) -> str:
    """Substitute until nothing is left: a slot's text may mention other slots."""
    while "$" in template:
        template = Template(template).substitute(values)
    return template
