"""Problems drawn at random: one operation, a chain of them, or a form with its slots filled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from engine.evaluate.benchmarks.basics import classes, dicts, lists, loops, numbers, recursion, strings
from engine.evaluate.benchmarks.basics.form import Form
from engine.evaluate.benchmarks.basics.inputs import function_call
from engine.evaluate.benchmarks.basics.operation import Operation, Step

VARIABLES = {"int": "n", "str": "s", "ints": "xs", "words": "ws", "dict": "d"}
"""What a value of each type is called, everywhere."""

NAMES = ("f", "g", "h", "solve")

OPERATIONS = (*numbers.OPERATIONS, *strings.OPERATIONS, *lists.OPERATIONS, *dicts.OPERATIONS)
FORMS = (*loops.FORMS, *recursion.FORMS, *classes.FORMS)


@dataclass(frozen=True, slots=True)
class Problem:
    """A program to write: what the model sees, what passes, and how to call it.

    `call(rng, entry_point, number)` writes the number-th hidden test. `weaker` holds completions that leave
    something out; hidden tests worth their name fail each of them.
    """

    level: int
    steps: tuple[Step, ...]
    prompt: str
    completion: str
    entry_point: str
    call: Callable[[random.Random, str, int], str]
    weaker: tuple[str, ...] = ()

    @property
    def operations(self) -> tuple[str, ...]:
        return tuple(step.operation.name for step in self.steps)

    @property
    def family(self) -> str:
        """The combination key: the operations in order."""
        return "+".join(self.operations)


def draw(
    rng: random.Random,
    level: int,
    operations: Sequence[Operation] = OPERATIONS,
    forms: Sequence[Form] = FORMS,
) -> Problem:
    """One problem of a level: 1 is one operation, 2 a chain of two or three, 3 a form."""
    if level == 3:
        return fill(rng, choose_form(rng, forms))
    return chain(rng, operations, 1 if level == 1 else rng.choice((2, 3)))


def choose_form(rng: random.Random, forms: Sequence[Form] = FORMS) -> Form:
    """A form by weight."""
    return rng.choices(forms, [form.weight for form in forms])[0]


def chain(rng: random.Random, operations: Sequence[Operation], length: int) -> Problem:
    """A walk over operations whose types fit, each used once, one statement each."""
    steps: list[Step] = []
    candidates = list(operations)
    while len(steps) < length:
        if not candidates:
            steps, candidates = [], list(operations)
        chosen = rng.choice(candidates)
        steps.append(chosen.fill(rng))
        used = {step.operation.name for step in steps}
        candidates = [op for op in operations if op.takes == chosen.gives and op.name not in used]
    name = rng.choice(NAMES)
    kind = steps[0].operation.takes
    sentence = ", then ".join(step.phrase for step in steps)
    return Problem(
        level=1 if length == 1 else 2,
        steps=tuple(steps),
        prompt=f'def {name}({VARIABLES[kind]}):\n    """{sentence[0].upper()}{sentence[1:]}."""\n',
        completion=_statements(steps),
        entry_point=name,
        call=partial(function_call, kind),
        weaker=tuple(_shortened(steps)),
    )


def fill(rng: random.Random, form: Form) -> Problem:
    """A form with an operation in each slot, all different."""
    while True:
        steps = {slot: rng.choice(options).fill(rng) for slot, options in form.slots.items()}
        if len({step.operation.name for step in steps.values()}) == len(steps):
            break
    name = rng.choice(form.names)
    prompt, completion = form.write(steps, name)
    guard = steps.get("guard")
    return Problem(
        level=3,
        steps=tuple(steps.values()),
        prompt=prompt,
        completion=completion,
        entry_point=name,
        call=form.call,
        weaker=tuple(completion.replace(guard.code, word) for word in ("True", "False")) if guard else (),
    )


def _statements(steps: Sequence[Step]) -> str:
    *first, last = steps
    lines = [f"    {VARIABLES[step.operation.gives]} = {step.code}\n" for step in first]
    return "".join((*lines, f"    return {last.code}\n"))


def _shortened(steps: Sequence[Step]) -> Iterator[str]:
    for left_out, step in enumerate(steps):
        if len(steps) > 1 and step.operation.takes == step.operation.gives:
            yield _statements([other for index, other in enumerate(steps) if index != left_out])
