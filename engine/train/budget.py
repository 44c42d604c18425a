"""AdaLoRA's budget of ranks: which of them stay, by how much the loss depends on each (arXiv 2303.10512)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import Piece, shapes
from engine.config import Adapter
from engine.dist import World
from engine.train.engine import Engine

SMOOTHING = 0.85
"""Both of the paper's betas, for sensitivity and for its uncertainty."""
SENSITIVITY, UNCERTAINTY = "sensitivity", "uncertainty"
MATRIX = re.compile(r"(.+)\.lora_([ABE])\.default")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many ranks a layer may have on average: all at first, then fewer by a cubic, at last `target` and the same
    ones (eq. 12). `first` and `last` are the steps, from 1, between which ranks are taken away, every `every` steps."""

    full: int
    target: int
    first: int
    last: int
    every: int

    @classmethod
    def of(cls, wish: Adapter, steps: int) -> Schedule:
        """The Run's, over so many steps."""
        first, last = round(wish.budget_start * steps), max(1, round(wish.budget_end * steps))
        return cls(wish.rank, wish.target_rank, first, last, wish.budget_every)

    def due(self, step: int) -> bool:
        """Whether ranks are taken away after this step."""
        return step >= self.last or (step > self.first and step % self.every == 0)

    def ranks(self, step: int, layers: int) -> int:
        """Ranks that all layers together keep after this step."""
        if step >= self.last:
            return self.target * layers
        left = 1 - max(0, step - self.first) / max(1, self.last - self.first)
        return int((self.full - self.target) * layers * left**3) + self.target * layers


class Budget:
    """Watches the gradients of AdaLoRA's matrices in the optimizer, and sets singular values to zero when due.

    What it knows of each weight lies in the optimizer's state: so it is sharded, saved and resharded as that is. From
    the schedule's last step on it is not changed any more, and neither is the choice that follows from it. Without
    AdaLoRA there is nothing to watch.
    """

    def __init__(self, engine: Engine, wish: Adapter, world: World, *, steps: int) -> None:
        self._engine = engine
        self._world = world
        self._schedule = Schedule.of(wish, steps)
        self._shapes = shapes(engine.model, trainable_only=True) if wish.kind == "adalora" else {}
        self._layers = [name.rpartition(".lora_E.")[0] for name in self._shapes if ".lora_E." in name]
        self._watching = False
        self._last: dict[str, Tensor] | None = None
        if self._layers:
            engine.stepped.register_step_post_hook(self._watch)

    @contextlib.contextmanager
    def kept(self, step: int) -> Iterator[list[int]]:
        """Context of the optimizer's step `step`, from 1 (a collective); filled with the ranks that are left of the
        layers, in the model's order, where the schedule said to choose."""
        left: list[int] = []
        self._watching = bool(self._layers) and step < self._schedule.last
        try:
            yield left
        finally:
            self._watching = False
        if not self._layers or not self._schedule.due(step):
            return
        final = step >= self._schedule.last
        if not (final and self._last is not None):
            dropped = self._choose(self._schedule.ranks(step, len(self._layers)))
            left.extend(int((~each).sum()) for each in dropped.values())
            self._last = dropped if final else None
        else:
            dropped = self._last
        self._engine.blank(dropped)

    @torch.no_grad()
    def _watch(self, optimizer: Any, *_: Any) -> None:
        """Smooth |weight x gradient| of every element, and how far it strays from that (eq. 8 to 10)."""
        if not self._watching:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, now = optimizer.state[parameter], (parameter * parameter.grad).abs()
                sensitivity = state.setdefault(SENSITIVITY, torch.zeros_like(now))
                uncertainty = state.setdefault(UNCERTAINTY, torch.zeros_like(now))
                sensitivity.lerp_(now, 1 - SMOOTHING)
                uncertainty.lerp_((now - sensitivity).abs(), 1 - SMOOTHING)

    def _choose(self, count: int) -> dict[str, Tensor]:
        """For each layer's singular values, which of them go: all but the `count` that matter most (a collective)."""
        scores = torch.zeros(len(self._layers), self._schedule.full, dtype=torch.float64)
        for piece in self._engine.pieces():
            if SENSITIVITY in piece.state:
                self._add(scores, piece)
        whole = torch.tensor(self._world.sum(scores.flatten().tolist()))
        # The first of equals stays, on all ranks alike.
        order = whole.sort(descending=True, stable=True).indices
        dropped = torch.ones(len(whole), dtype=torch.bool)
        dropped[order[:count]] = False
        rows = dropped.view_as(scores)
        return {f"{layer}.lora_E.default": rows[number] for number, layer in enumerate(self._layers)}

    def _add(self, scores: Tensor, piece: Piece) -> None:
        """Add a piece's elements to the scores of their ranks: singular values whole, vectors by their mean (eq. 7)."""
        found = MATRIX.fullmatch(piece.name)
        if found is None:
            return
        layer, matrix = self._layers.index(found[1]), found[2]
        rows, columns = self._shapes[piece.name]
        values = (piece.state[SENSITIVITY] * piece.state[UNCERTAINTY]).double().cpu()
        places = torch.arange(piece.start, piece.start + len(values))
        ranks = places % columns if matrix == "B" else places // columns
        scores[layer].index_add_(0, ranks, values / {"A": columns, "B": rows, "E": 1}[matrix])
