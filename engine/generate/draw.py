"""Next tokens from logits, drawn so that a sample is a function of its seed and not of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from engine.generate.request import Sampling

# Tokens looked at before all are sorted.
_FEW = 64
_GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Rule:
    """How each row of a batch draws; tensors of shape [rows, 1].

    Attributes:
        temperature: 1 for greedy rows, which do not use it.
        top_p: None when no row has a nucleus.
        greedy: None when no row is greedy.
        random: [rows, positions] numbers in [0, 1); None when all rows are greedy.
    """

    temperature: Tensor
    top_p: Tensor | None
    greedy: Tensor | None
    random: Tensor | None

    def select(self, rows: Tensor) -> Rule:
        """The rule of some of the rows."""
        parts = (self.temperature, self.top_p, self.greedy, self.random)
        return Rule(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


def rule(
    samplings: Sequence[Sampling], seeds: Sequence[int], *, positions: int, device: torch.device
) -> Rule:
    """The drawing rule of a batch that will draw `positions` tokens a row."""

    def column(values: list[float] | list[bool]) -> Tensor:
        return torch.tensor(values, device=device)[:, None]

    greedy = [sampling.temperature == 0 for sampling in samplings]
    return Rule(
        temperature=column([sampling.temperature or 1.0 for sampling in samplings]),
        top_p=column([s.top_p for s in samplings]) if any(s.top_p < 1 for s in samplings) else None,
        greedy=column(greedy) if any(greedy) else None,
        random=None if all(greedy) else torch.from_numpy(uniforms(seeds, positions)).to(device),
    )


def uniforms(seeds: Sequence[int], positions: int) -> numpy.ndarray:
    """Numbers in [0, 1) of shape [seeds, positions], each a function of its seed and position alone.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a counter-based generator: the same on every device,
    with no state to carry when rows leave the batch.
    """
    start = _mix(numpy.array([seed % (1 << 64) for seed in seeds], dtype=numpy.uint64))
    counter = numpy.arange(1, positions + 1, dtype=numpy.uint64) * _GOLDEN
    # 52 bits, not 53: the largest times a sum slightly above 1 must stay below that sum.
    return (_mix(start[:, None] + counter[None, :]) >> numpy.uint64(12)).astype(numpy.float64) * 2.0**-52


def draw(logits: Tensor, by: Rule, position: int) -> Tensor:
    """One token a row.

    Args:
        logits: [rows, vocabulary], finite.
        by: the rule of these rows.
        position: which new token this is, from 0.

    Returns:
        [rows] token ids.
    """
    logits = logits.float()
    if by.random is None:
        return logits.argmax(-1)
    weights = torch.softmax(logits / by.temperature, -1)
    if by.top_p is not None:
        weights = _nucleus(weights, by.top_p)
    # Inverse of the distribution function, in the vocabulary's order: in sorted order, rounding could swap
    # two almost equal tokens, and with them the sample.
    cumulative = weights.double().cumsum(-1)
    threshold = by.random[:, position : position + 1] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return drawn if by.greedy is None else torch.where(by.greedy[:, 0], logits.argmax(-1), drawn)


def _nucleus(weights: Tensor, top_p: Tensor) -> Tensor:
    """Keep the smallest set of likeliest tokens that holds `top_p` (arXiv 1904.09751); others weigh 0."""
    # A full sort costs as much as a small model's step, and the nucleus is mostly among the first few.
    likeliest = weights.topk(min(_FEW, weights.shape[-1]), dim=-1).values
    least = _least_inside(likeliest, top_p)
    wide = likeliest.sum(-1) < top_p[:, 0]
    if bool(wide.any()):
        least[wide] = _least_inside(weights[wide].sort(dim=-1, descending=True).values, top_p[wide])
    return weights.masked_fill(weights < least, 0.0)


def _least_inside(ordered: Tensor, top_p: Tensor) -> Tensor:
    """The smallest weight inside the nucleus, [rows, 1]; equal weights are all in, whichever came first."""
    inside = ordered.cumsum(-1) - ordered < top_p
    inside[:, 0] = True
    return ordered.masked_fill(~inside, torch.inf).amin(-1, keepdim=True).masked_fill(top_p >= 1, 0.0)


def _mix(values: numpy.ndarray) -> numpy.ndarray:
    values = values + _GOLDEN
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))
