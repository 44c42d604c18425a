"""What the loop needs of a strategy: forward, backward, step, and the way to its whole weights and state."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.checkpoint import Piece, Saved
from engine.config import Run
from engine.dist import World
from engine.model import adapt, load_model, unsharded


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimizer step did: gradient norm before clipping; `skipped` when fp16 scaling dropped it."""

    grad_norm: float
    skipped: bool = False


class Engine(Protocol):
    """A model under a strategy. Three exist: `Replica` (none, ddp), `Zero` (zero1 to zero3) and `Fsdp`."""

    module: torch.nn.Module
    """What forward is called on."""
    model: Any
    """The model inside, unwrapped."""

    @property
    def stepped(self) -> torch.optim.Optimizer:
        """The optimizer whose step changes this rank's fp32 values."""

    def in_force(self) -> str:
        """One phrase for the strategy found to be in force; raises AssertionError if it is not the Run's."""

    def accumulate(self, *, last: bool) -> AbstractContextManager[Any]:
        """Context of one micro-batch's forward and backward."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients of a micro-batch's loss; `last` closes the step, so ranks exchange gradients."""

    def step(self, rate: float) -> Update:
        """Clip, update the weights at this learning rate unless a gradient is not finite, forget the gradients."""

    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """Trainable weights, whole, in host memory, on rank 0 or on every rank (a collective: all ranks call it)."""

    def whole(self) -> AbstractContextManager[Any]:
        """The current model, whole, in eval mode, for generation on this rank alone."""

    def pieces(self) -> list[Piece]:
        """Master weights and optimizer state that this rank is to write: all ranks' together are everything once."""

    def restore(self, saved: Saved) -> None:
        """Take from all ranks' pieces what this one holds; ranks and strategy may be others than then."""

    def rehearsing(self, micro_batches: int) -> AbstractContextManager[Any]:
        """Context of one step of that many micro-batches, at rate 0 and with gradients of zero, before any other.

        Afterwards weights, optimizer, counters and loss scale are, to the bit, what they were.
        """

    def blank(self, masks: Mapping[str, Tensor]) -> None:
        """Set elements of trained weights, those where their mask is true, to zero (a collective).

        Args:
            masks: by weight, [elements], the same on all ranks.
        """

    @property
    def scaling(self) -> dict[str, Any]:
        """State of the fp16 loss scale, in plain numbers; the same on all ranks."""


def whole_copy(engine: Engine, run: Run, world: World) -> Any:
    """A whole model on this rank with a sharded engine's current weights, in eval mode (a collective).

    Sharded weights would need a collective for every token generated, and ranks generate different numbers of them.
    """
    weights = engine.weights(every_rank=True)
    devices = [world.device] if world.device.type == "cuda" else []
    # A fresh adapter or fresh weights are drawn from the run's seed: the training's generators must not notice.
    with unsharded(), torch.random.fork_rng(devices=devices):
        copy = adapt(load_model(run, world.device), run)
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if name in weights:
                parameter.copy_(weights.pop(name))
    assert not weights, f"weights without a place in the copy: {list(weights)[:3]}"
    return copy.eval()
