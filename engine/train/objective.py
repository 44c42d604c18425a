"""What is minimised: the summed loss of the trained tokens of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.data import IGNORED, Batch
from engine.dist import World
from engine.model import LossHead

PROBE_TOKENS = 64
SAME = 1e-2
"""Relative difference of two ways to sum a batch's loss that rounding stays far below, in any precision."""

Objective = Callable[[torch.nn.Module, Batch, torch.device], Tensor]
"""(module, batch, device) to a scalar: the sum, not the mean, over the batch's trained tokens, in fp32.

The module takes `input_ids`, `position_ids` [rows, length] and `logits_to_keep`. The batch is in host memory; its
labels are aligned with the ids, not shifted, and may have a column more (`Batch.part`). There is no attention mask:
positions restart with each sample and the model keeps samples apart by them.
"""


def next_token_loss(
    module: torch.nn.Module, batch: Batch, device: torch.device, *, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of every trained token, from logits of the columns that hold one (see `Objective`).

    `smoothing` (arXiv 1512.00567) is for training alone: what is validated stays comparable between runs.
    """
    labels = batch.labels[:, 1:]
    columns = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    if not len(columns):
        # A row without trained tokens still runs, so that every rank takes part in every collective.
        columns = torch.zeros(1, dtype=torch.long)
    targets = labels[:, columns].to(device, non_blocking=True)
    logits = _call(module, batch, device, keep=columns.to(device, non_blocking=True))
    return cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing if module.training else 0.0,
    )


def chunked_next_token_loss(head: LossHead, *, smoothing: float = 0.0) -> Objective:
    """The same sum, from the model's output head itself: only trained positions reach it, a chunk at a time."""

    def loss(module: torch.nn.Module, batch: Batch, device: torch.device) -> Tensor:
        labels = batch.labels[:, 1:]
        rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
        if len(rows):
            positions, targets = rows * batch.input_ids.shape[1] + columns, labels[rows, columns]
        else:
            positions, targets = torch.zeros(1, dtype=torch.long), torch.full((1,), IGNORED)
        here = (positions.to(device, non_blocking=True), targets.to(device, non_blocking=True))
        with head.asked(*here, IGNORED, smoothing if module.training else 0.0):
            return _call(module, batch, device, keep=0)

    return loss


@torch.no_grad()
def objective_of(
    module: torch.nn.Module,
    head: LossHead | None,
    vocabulary: int,
    world: World,
    *,
    smoothing: float = 0.0,
) -> tuple[Objective, str]:
    """The chunked loss where the model's own answer shows that it is the same one, else the plain; and its name.

    A collective, asked with one row of random ids. Models that change logits after the output head (soft caps, scales)
    would change the loss in the same way.
    """
    plain = partial(next_token_loss, smoothing=smoothing)
    if head is None:
        return plain, "from logits"
    chunked = chunked_next_token_loss(head, smoothing=smoothing)
    ids = torch.randint(vocabulary, (1, PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    batch = Batch(ids, ids, torch.arange(PROBE_TOKENS)[None], ("probe",), PROBE_TOKENS)
    module.eval()
    one, other = (float(each(module, batch, world.device)) for each in (chunked, plain))
    apart = world.max([abs(one - other) / max(1.0, abs(other))])[0]
    return (chunked, "chunked in the head") if apart < SAME else (plain, "from logits")


def _call(module: torch.nn.Module, batch: Batch, device: torch.device, *, keep: int | Tensor) -> Tensor:
    logits: Tensor = module(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        position_ids=batch.position_ids.to(device, non_blocking=True),
        logits_to_keep=keep,
        use_cache=False,
    ).logits
    return logits
