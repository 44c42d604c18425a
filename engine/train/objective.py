"""What is minimised: the summed loss of the trained tokens of a micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.data import IGNORED, Batch


def next_token_loss(module: torch.nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Sum (not mean) of the cross entropy of every trained token, in fp32.

    Only columns with a trained token reach the output head, so logits of prompts and padding never exist.
    There is no attention mask: positions restart with each sample and the model keeps samples apart by them.

    Args:
        module: takes `input_ids`, `position_ids` [rows, length] and `logits_to_keep`; returns logits.
        batch: host tensors; labels are aligned with the ids, not shifted.
        device: where the module computes.
    """
    labels = batch.labels[:, 1:]
    columns = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    if not len(columns):
        # A row without trained tokens still runs, so that every rank takes part in every collective.
        columns = torch.zeros(1, dtype=torch.long)
    targets = labels[:, columns].to(device, non_blocking=True)
    logits = module(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        position_ids=batch.position_ids.to(device, non_blocking=True),
        logits_to_keep=columns.to(device, non_blocking=True),
        use_cache=False,
    ).logits
    return cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
