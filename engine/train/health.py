"""Numbers that are no numbers: noticed before they reach the weights, with the samples they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.data import Batch
from engine.dist import World
from engine.errors import Stopped

SHOWN = 8
MOST_DROPPED = 10
"""Steps on end without finite gradients that `train.non_finite: skip` bears."""


def demand_finite_loss(world: World, step: int, batches: Sequence[Batch], losses: Sequence[float]) -> None:
    """Stop all ranks if a micro-batch's loss on any of them is not finite (a collective).

    Raises:
        Stopped: names the step and the samples of the bad micro-batches, the same on every rank.
    """
    mine = _bad(batches, losses)
    if not world.max([bool(mine)])[0]:
        return
    names = [name for rank in world.gather(mine) for name in rank]
    raise Stopped(
        f"the loss of step {step} is not finite, from samples {shown(names)}",
        "look at these samples, lower train.learning_rate, or use parallel.precision fp32; the last checkpoint is good",
    )


def not_finite(
    world: World, step: int, norm: float, batches: Sequence[Batch], losses: Sequence[Tensor]
) -> Stopped:
    """What stops a run whose gradients are not finite (a collective)."""
    return Stopped(
        f"the gradient norm of step {step} is {norm}, from samples {shown(culprits(world, batches, losses))}",
        "lower train.learning_rate or use parallel.precision fp32, and resume from the last checkpoint; "
        "train.non_finite=skip drops such steps",
    )


def culprits(world: World, batches: Sequence[Batch], losses: Sequence[Tensor]) -> list[str]:
    """Samples of all ranks whose loss is not finite, or else all of the step (a collective).

    A norm is that of all ranks' gradients, so they all come here with the same one, and only then do they talk.
    """
    bad = _bad(batches, torch.stack(list(losses)).tolist())
    gathered = world.gather((bad, [name for batch in batches for name in batch.sample_ids]))
    return [name for rank, _ in gathered for name in rank] or [name for _, rank in gathered for name in rank]


def _bad(batches: Sequence[Batch], losses: Sequence[float]) -> list[str]:
    return [
        name
        for batch, loss in zip(batches, losses, strict=True)
        if not math.isfinite(loss)
        for name in batch.sample_ids
    ]


def shown(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
