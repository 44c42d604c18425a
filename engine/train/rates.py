"""Learning rates by layer and by name: a factor for each weight, beside the one rate of the step."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from engine.config import Train
from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class Places:
    """Where the weights of a model lie, told from their names.

    Attributes:
        layers: decoder layers.
        embeddings: paths of modules that are, or adapt, an embedding.
    """

    layers: int
    embeddings: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Places:
        """Those of a model, adapted or not; frozen weights count, so that adapters in some layers change nothing."""
        numbers = [layer_of(name) for name, _ in model.named_parameters()]
        paths = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
        # PEFT puts an embedding it adapts inside a module that takes its place.
        outer = (re.sub(r"\.(base_layer|original_module)$", "", path) for path in paths)
        return cls(1 + max((n for n in numbers if n is not None), default=-1), tuple(dict.fromkeys(outer)))

    def embeds(self, name: str) -> bool:
        """Whether a weight belongs to an embedding."""
        return any(name.startswith(f"{path}.") for path in self.embeddings)

    def below_the_head(self, name: str) -> int:
        """How many layers a weight lies below the head: 0 the head and the last norm, 1 the last layer, and so on."""
        number = layer_of(name)
        if number is not None:
            return self.layers - number
        return self.layers + 1 if self.embeds(name) else 0


def layer_of(name: str) -> int | None:
    """The number of the decoder layer a weight is in, the first number in its dotted name; None outside of layers."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def rate_factors(names: Sequence[str], train: Train, places: Places) -> dict[str, float]:
    """The factor on the learning rate of each weight.

    Raises:
        WishError: a pattern is found in no name, or there are no layers to tell apart.
    """
    for pattern in train.learning_rate_factors:
        if not any(re.search(pattern, name) for name in names):
            raise WishError(
                f"train.learning_rate_factors has {pattern!r}, which is in the name of no trained weight",
                f"their names are such as {', '.join(_like(pattern, names))}",
            )
    if train.layer_decay < 1 and not places.layers:
        raise WishError(
            f"train.layer_decay is {train.layer_decay:g} and no weight of this model is in a numbered layer",
            "set it to 1, and use train.learning_rate_factors",
        )
    return {name: _factor(name, train, places) for name in names}


def _factor(name: str, train: Train, places: Places) -> float:
    found = (factor for pattern, factor in train.learning_rate_factors.items() if re.search(pattern, name))
    return math.prod(found) * train.layer_decay ** places.below_the_head(name)


def _like(pattern: str, names: Iterable[str]) -> list[str]:
    """A few names, the nearest first, one of each layer's kind."""
    kinds = list({re.sub(r"\.\d+\.", ".N.", name): name for name in names}.values())
    return difflib.get_close_matches(pattern, kinds, n=3, cutoff=0.0)
