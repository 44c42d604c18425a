"""What a search may change: config keys with the values they may take, read from a file and held against the Run."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from engine.config import Run, load, read_tree
from engine.errors import WishError

# Each trial has a folder of its own, and values are compared: what they are must be the same for all.
FIXED = {
    "output": "each trial has a folder of its own",
    "seed": "a lucky seed is no better run",
    "checkpoint.metric": "trials are compared by it: use --metric",
    "checkpoint.mode": "trials are compared by it",
    "checkpoint.resume": "an interrupted trial is continued",
    "data.validation": "trials are compared on the same rows",
    "data.validation_fraction": "trials are compared on the same rows",
    "parallel.restarts": "it changes no result",
}
WORDS = ("low", "high", "log", "step", "choices")
Kind = Literal["float", "int", "choice"]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One key and its values.

    Attributes:
        key: dotted, as `--set` takes it.
        kind: `float` and `int` lie between `low` and `high`, both included.
        step: from `low` on; None: every value.
        log: whether values are drawn evenly over magnitudes.
        choices: the values of a `choice`, each as JSON, which is what stands right of `--set key=`.
    """

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """The values that must be possible by themselves, as `--set` takes them."""
        return self.choices if self.kind == "choice" else (self.word(self.low), self.word(self.high))

    def word(self, value: Any) -> str:
        """A value as it stands right of `--set key=`."""
        if self.kind == "choice":
            return str(value)
        return str(int(value)) if self.kind == "int" else repr(float(value))

    def value_of(self, run: Run) -> Any:
        """The Run's own value as a search would draw it; None where it lies outside."""
        value: Any = run.model_dump(mode="json")
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if self.kind == "choice":
            same = [one for one in self.choices if json.loads(one) == value]
            return same[0] if same else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high or (self.kind == "int" and value != int(value)):
            return None
        steps = (value - self.low) / self.step if self.step else 0.0
        return value if math.isclose(steps, round(steps), abs_tol=1e-9) else None

    @property
    def text(self) -> str:
        """As a person reads it."""
        if self.kind == "choice":
            return f"{self.key}: one of {', '.join(self.choices)}"
        how = " on a log scale" if self.log else ""
        step = f" in steps of {self.word(self.step)}" if self.step else ""
        return f"{self.key}: {self.word(self.low)} to {self.word(self.high)}{step}{how}"


def read_space(path: str | Path, run_file: str, overrides: tuple[str, ...] = ()) -> tuple[Dimension, ...]:
    """The dimensions in a file, each of whose values the Run's schema takes.

    Raises:
        WishError: an unreadable file, a key that is no config key or may not be searched, a range that is none, or a
            value that the key does not take.
    """
    if not Path(path).is_file():
        raise WishError(f"there is no space file {path}", "name a YAML file of keys and ranges")
    tree = read_tree(path)
    dimensions = tuple(_dimension(str(path), str(key), wish) for key, wish in tree.items())
    if not dimensions:
        raise WishError(
            f"{path} names no key", "write e.g. train.learning_rate: {low: 1e-5, high: 1e-3, log: true}"
        )
    for dimension in dimensions:
        for word in dimension.ends:
            try:
                load(run_file, (*overrides, f"{dimension.key}={word}"))
            except WishError as error:
                raise WishError(f"{path}, {dimension.key}={word}: {error.what}", error.fix) from None
    return dimensions


def settings(dimensions: tuple[Dimension, ...], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Drawn values as `--set` texts, in the order of the file."""
    return tuple(f"{one.key}={one.word(values[one.key])}" for one in dimensions)


def snippet(words: tuple[str, ...]) -> str:
    """`--set` texts as a part of a run file."""
    tree: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        *sections, name = key.split(".")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
        here[name] = json.loads(value)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _dimension(file: str, key: str, wish: Any) -> Dimension:
    why = FIXED.get(key) or next((FIXED[one] for one in FIXED if key.startswith(f"{one}.")), None)
    if why:
        raise WishError(f"{file}: {key} cannot be searched over", why)
    if not isinstance(wish, dict):
        raise WishError(f"{file}: {key} is {wish!r}", "write {low: ..., high: ...} or {choices: [...]}")
    for word in wish:
        if word not in WORDS:
            near = difflib.get_close_matches(str(word), WORDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(WORDS)}"
            raise WishError(f"{file}: {key} has {word!r}", hint)
    return _choice(file, key, wish) if "choices" in wish else _range(file, key, wish)


def _choice(file: str, key: str, wish: dict[str, Any]) -> Dimension:
    values = wish["choices"]
    if len(wish) > 1:
        raise WishError(
            f"{file}: {key} has choices and {', '.join(w for w in wish if w != 'choices')}", "keep one"
        )
    if not isinstance(values, list) or not values or any(isinstance(value, dict) for value in values):
        raise WishError(
            f"{file}: the choices of {key} are {values!r}", "write a list of values, e.g. [8, 16, 32]"
        )
    try:
        words = tuple(json.dumps(value, ensure_ascii=False) for value in values)
    except TypeError:
        raise WishError(f"{file}: {key} has a choice that is no plain value", "quote it") from None
    if len(set(words)) < len(words):
        raise WishError(f"{file}: {key} has the same choice twice", "name each once")
    return Dimension(key, "choice", choices=words)


def _range(file: str, key: str, wish: dict[str, Any]) -> Dimension:
    missing = [word for word in ("low", "high") if word not in wish]
    if missing:
        raise WishError(
            f"{file}: {key} has no {' and no '.join(missing)}",
            "write {low: ..., high: ...} or {choices: [...]}",
        )
    low, high, step, log = wish["low"], wish["high"], wish.get("step"), wish.get("log", False)
    numbers = [low, high, *([step] if step is not None else [])]
    if any(
        isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) for one in numbers
    ):
        raise WishError(f"{file}: {key} goes from {low!r} to {high!r}, step {step!r}", "write plain numbers")
    if not isinstance(log, bool):
        raise WishError(f"{file}: {key} has log {log!r}", "write log: true or log: false")
    if not low < high:
        raise WishError(f"{file}: {key} goes from {low} to {high}", "low must be below high")
    if log and step is not None:
        raise WishError(
            f"{file}: {key} has a step on a log scale", "leave one of the two out, or use choices"
        )
    if log and low <= 0:
        raise WishError(f"{file}: {key} starts at {low} on a log scale", "low must be above 0")
    if step is not None and not 0 < step <= high - low:
        raise WishError(
            f"{file}: {key} has step {step} between {low} and {high}", "use a smaller step above 0"
        )
    if step is not None and not math.isclose((high - low) / step, round((high - low) / step), rel_tol=1e-9):
        raise WishError(
            f"{file}: {key} does not reach {high} from {low} in steps of {step}", "end at a whole step"
        )
    kind: Kind = "int" if all(isinstance(one, int) for one in numbers) else "float"
    return Dimension(key, kind, float(low), float(high), None if step is None else float(step), log)
