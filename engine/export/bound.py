"""How far two models' next-token distributions are apart, and how far a merged one may be from what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.data import IGNORED, Batch

MEAN_KL = {"fp32": 1e-6, "fp16": 1e-4, "bf16": 2e-3}
"""Nats a token, by the precision the weights are written in. bf16 logits between 16 and 32 stand 1/8 apart, which
alone is up to 1.3e-3 between two roundings of one model; fp16 has three bits more, which is a 64th of it."""
LARGEST_OVER_MEAN = 100.0
"""A single broken token (a wrong row of the embedding) would hide in a mean of thousands, as would a part of what
putting a QLoRA adapter into the base as it was before quantisation does: measured 1.2e-3, and 0.80 at most."""
POSITIONS = 256
"""Compared at a time: vocabularies are wide, and the sums are taken in fp64."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(adapter on base || merged) over the positions whose next token is trained, in nats."""

    tokens: int
    mean: float
    largest: float
    same_choice: float
    """Share of positions where both put the same token first."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a divergence may come to, in nats a token."""

    mean: float
    largest: float

    @classmethod
    def of(cls, precision: str, mean: float | None = None) -> Bound:
        """The bound of a precision, or around another mean."""
        chosen = MEAN_KL[precision] if mean is None else mean
        return cls(chosen, LARGEST_OVER_MEAN * chosen)

    def holds(self, found: Divergence) -> bool:
        """Whether a divergence is within; one that is no number is not."""
        return found.mean <= self.mean and found.largest <= self.largest


@torch.no_grad()
def divergence(reference: Any, other: Any, batches: Iterable[Batch], *, tokens: int) -> Divergence:
    """Compare two models on the same rows, position by position.

    Args:
        reference: the model whose distribution is the measure.
        other: the one that should be the same.
        batches: rows, as training reads them; taken until there are tokens enough.
        tokens: trained tokens to look at; fewer where the rows have fewer.

    Returns:
        The divergence (Kullback and Leibler 1951), computed in fp64 from the logits as the models give them.
    """
    found: list[Tensor] = []
    agreed = count = 0
    for batch in batches:
        for left, right in _logits(reference, other, batch):
            left, right = left[: tokens - count], right[: tokens - count]
            p, q = left.double().log_softmax(-1), right.double().log_softmax(-1)
            found.append((p.exp() * (p - q)).sum(-1).cpu())
            agreed += int((p.argmax(-1) == q.argmax(-1)).sum())
            count += len(left)
            if count >= tokens:
                break
        if count >= tokens:
            break
    each = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
    return Divergence(
        count, float(each.mean()), float(each.max()) if count else float("nan"), agreed / max(1, count)
    )


def _logits(reference: Any, other: Any, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Both models' logits [positions, vocabulary] where the next token is trained, some positions at a time."""
    device = next(reference.parameters()).device
    moved = batch.to(device)
    where = torch.nn.functional.pad(moved.labels[:, 1:] != IGNORED, (0, 1))
    inputs = {"input_ids": moved.input_ids, "position_ids": moved.position_ids, "use_cache": False}
    left, right = reference(**inputs).logits[where], other(**inputs).logits[where]
    return zip(left.split(POSITIONS), right.split(POSITIONS), strict=True)
