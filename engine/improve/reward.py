"""A reward function that runs what the model wrote: one callable for trainers with TRL's GRPO signature."""

from __future__ import annotations

import atexit
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import WishError
from engine.generate import extract
from engine.sandbox import VERDICTS, Call, Limits, Pool, Program, check_program

_NO_STOPS: tuple[str, ...] = ()
_DEFAULT = Limits()
PASSED_OR_NOT: Mapping[str, float] = {"passed": 1.0}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What extraction has to know of a task."""

    prompt: str
    entry_point: str
    stop: tuple[str, ...] = _NO_STOPS
    suffix: str = ""
    language: str = "python"


class ExecutionReward:
    """Rewards completions by running them against their row's tests, in a sandbox that lives as long as this object.

    Give it to a trainer as a reward function: `GRPOTrainer(..., reward_funcs=[ExecutionReward()])`. The data set's
    columns say how a completion is judged, one value a row:

    - `test` (source that defines `check(candidate)`) with `entry_point`: HumanEval's form, judged in a process apart;
    - `calls`: pairs of an expression and its expected value, as a list or as JSON, compared outside the program;
    - `entry_point`: the function the completion must define.

    Plain completions go on with their prompt; conversational ones are searched for their code.

    Args:
        values: reward by verdict name; a verdict that is not named is worth `otherwise`.
        otherwise: the reward of every other verdict. `infra` (the sandbox failed, not the program) is None always,
            which trainers leave out of the advantage.
        limits, workers, level, preload: as for `engine.sandbox.Pool`.

    Raises:
        WishError: this kernel cannot give `level`, `values` names no verdict, or a row cannot be judged.
    """

    __name__ = "execution_reward"  # trainers log a reward under its function's name

    def __init__(
        self,
        *,
        values: Mapping[str, float] = PASSED_OR_NOT,
        otherwise: float = 0.0,
        limits: Limits = _DEFAULT,
        workers: int = 2,
        level: str | None = None,
        preload: tuple[str, ...] = (),
    ) -> None:
        unknown = sorted(set(values) - set(VERDICTS))
        if unknown:
            raise WishError(
                f"there is no verdict {', '.join(map(repr, unknown))} to be worth anything",
                f"use names of {', '.join(VERDICTS)}",
            )
        self.values = dict(values)
        self.otherwise = otherwise
        self.limits = limits
        self.verdicts: Counter[str] = Counter()
        """How many completions ended with each verdict so far."""
        self._pool = Pool(workers, level, preload=preload)
        atexit.register(self.close)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One reward a completion, in order; `columns` are the data set's, one value a completion each."""
        if len(prompts) != len(completions):
            raise WishError(
                f"{len(completions)} completions came with {len(prompts)} prompts", "give a prompt for each"
            )
        rows = _rows(columns, len(completions))
        programs = []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            try:
                program = program_of(prompt, completion, {name: values[i] for name, values in rows})
                check_program(program)
                programs.append(program)
            except WishError as error:
                raise WishError(f"row {i} of {len(completions)}: {error.what}", error.fix) from None
        rewards: list[float | None] = []
        for verdict in self._pool.run_many(programs, self.limits):
            self.verdicts[verdict.name] += 1
            rewards.append(None if verdict.name == "infra" else self.values.get(verdict.name, self.otherwise))
        return rewards

    def close(self) -> None:
        """End the sandbox's workers. The object cannot be called afterwards."""
        atexit.unregister(self.close)
        self._pool.close()


def _rows(columns: dict[str, Any], count: int) -> list[tuple[str, Sequence[Any]]]:
    """The columns that have a value for each completion; trainers hand over their own objects as well."""
    return [
        (name, values)
        for name, values in columns.items()
        if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count
    ]


def program_of(prompt: Any, completion: Any, row: Mapping[str, Any]) -> Program:
    """The program a completion stands for, with its row's tests."""
    entry_point = row.get("entry_point") or ""
    chat = not isinstance(completion, str)
    if chat and not isinstance(completion, Sequence):
        raise WishError(f"a completion is a {type(completion).__name__}", "give text, or a list of messages")
    asked = _Asked("" if chat else str(prompt), entry_point)
    text = _said(completion) if chat else completion
    source = asked.prompt + extract(text, asked, chat=chat)
    if row.get("test"):
        if not entry_point:
            raise WishError(
                "a row has a test and no entry_point", "add the column: the function `check` is given"
            )
        return Program(source, entry_point, test=row["test"], context=asked.prompt)
    calls = _calls(row["calls"]) if row.get("calls") else ()
    if calls:
        return Program(source, entry_point or None, calls=calls)
    raise WishError(
        "a row has nothing to judge its completion by",
        "give the data set a column `test` (with `entry_point`) or `calls`",
    )


def _said(completion: Any) -> str:
    """What the assistant said last in a conversational completion."""
    messages = [m for m in completion if isinstance(m, Mapping) and m.get("role", "assistant") == "assistant"]
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if isinstance(part, Mapping))


def _calls(value: Any) -> tuple[Call, ...]:
    try:
        pairs = json.loads(value) if isinstance(value, str) else value
        return tuple(Call(str(expression), expected) for expression, expected in pairs)
    except (ValueError, TypeError) as error:
        raise WishError(
            f"a row's calls are not pairs of expression and value: {error}",
            'write them as [["f(1)", 2], ...]',
        ) from None
