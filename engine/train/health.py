"""Numbers that are no numbers: noticed before they reach the weights, with the samples they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.distributed

from engine.data import Batch
from engine.dist import World
from engine.errors import Stopped

SHOWN = 8


def demand_finite_loss(world: World, step: int, batches: Sequence[Batch], losses: Sequence[float]) -> None:
    """Stop all ranks if a micro-batch's loss on any of them is not finite (a collective).

    Raises:
        Stopped: names the step and the samples of the bad micro-batches, the same on every rank.
    """
    mine = [
        name
        for batch, loss in zip(batches, losses, strict=True)
        if not math.isfinite(loss)
        for name in batch.sample_ids
    ]
    if not world.max([bool(mine)])[0]:
        return
    gathered: list[list[str]] = [mine]
    if world.size > 1:
        gathered = [[] for _ in range(world.size)]
        torch.distributed.all_gather_object(gathered, mine, group=world.control)
    names = [name for rank in gathered for name in rank]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise Stopped(
        f"the loss of step {step} is not finite, from samples {', '.join(names[:SHOWN])}{more}",
        "look at these samples, lower train.learning_rate, or use parallel.precision fp32; the last checkpoint is good",
    )


def demand_finite_norm(step: int, norm: float, batches: Sequence[Batch]) -> None:
    """Stop if the gradient norm of a step that was taken is not finite: its weights must not be saved.

    Raises:
        Stopped: names the step and this rank's samples.
    """
    if math.isfinite(norm):
        return
    names = [name for batch in batches for name in batch.sample_ids]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise Stopped(
        f"the gradient norm of step {step} is {norm}, from samples {', '.join(names[:SHOWN])}{more}",
        "lower train.learning_rate or use parallel.precision fp32, and resume from the last checkpoint",
    )
