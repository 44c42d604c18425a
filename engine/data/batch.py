"""One micro-batch of one rank, and how rows of samples become its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
Spans = tuple[tuple[tuple[int, int], ...], ...]
"""Where samples begin and end in each row of a batch."""
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample as tokens: `ids` int32 [n], `trained` bool [n]; the first never is, as nothing predicts it.

    `targets` int32 [n] are the classes that tokens stand for, of which the trained ones are learnt; None: each token is
    to be predicted by those before it.
    """

    id: str
    ids: np.ndarray
    trained: np.ndarray
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors [rows, length], int64.

    `labels` is aligned to `input_ids` (not shifted), -100 where not trained: what the token at t is asked for stands at
    t + 1. The class of a token stands there too, so that such a batch has a column of labels more. `position_ids`
    restarts at 0 for every sample and for the padding tail, which is how attention tells samples apart: there is never
    an attention mask.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    sample_ids: tuple[str, ...]
    tokens: int
    """Tokens of samples; padding is none."""
    attended: int = 0
    """Pairs of a token and one it may look at, n (n + 1) / 2 for a sample of n: what its attention costs."""
    samples: Spans | None = None
    """Where each row's samples begin and end, without the padding tail; of the whole rows, where these are one rank's
    part of them. None: attention has to find out from the positions."""

    @property
    def trained_tokens(self) -> int:
        """Number of targets of the next-token loss: first tokens are never among them."""
        return int((self.labels[:, 1:] != IGNORED).sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            self.sample_ids,
            self.tokens,
            self.attended,
            self.samples,
        )

    def part(self, place: int, parts: int) -> Batch:
        """The columns of one of `parts` ranks that share the rows; the batch itself where there is one.

        `labels` has a column more, the first of the next rank's: what a part's last token is to predict. Tokens of
        samples and what they attend to are counted in even shares, whose sum is the batch's.
        """
        if parts == 1:
            return self
        length = self.input_ids.shape[1] // parts
        here, beyond = slice(place * length, (place + 1) * length), (place + 1) * length
        ahead = self.labels[:, beyond : beyond + 1]
        if place == parts - 1:
            ahead = torch.full_like(self.labels[:, :1], IGNORED)
        return Batch(
            self.input_ids[:, here],
            torch.cat([self.labels[:, here], ahead], dim=1),
            self.position_ids[:, here],
            self.sample_ids,
            _share(self.tokens, place, parts),
            _share(self.attended, place, parts),
            self.samples,
        )


def build(
    rows: Sequence[Sequence[Encoded]],
    *,
    pad_id: int,
    max_length: int,
    multiple: int = 1,
    joined: bool = False,
) -> Batch:
    """Lay rows of samples side by side, padded to the longest row (rounded up to a multiple of 8, within
    max_length, and then to one of `multiple`).

    Where they are `joined`, all their samples lie in one row, as long as that takes: nothing but its end is padding.
    A row without samples is all padding: it takes part in every collective and trains nothing.
    """
    if joined:
        rows, max_length = [[sample for row in rows for sample in row]], max_length * len(rows)
    longest = max((sum(len(sample) for sample in row) for row in rows), default=0)
    rounded = max(1, -(-longest // _ALIGNMENT)) * _ALIGNMENT
    length = -(-max(longest, min(rounded, max_length)) // multiple) * multiple
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    classes = any(sample.targets is not None for row in rows for sample in row)
    labels = np.full((len(rows), length + classes), IGNORED, dtype=np.int64)
    position_ids = np.zeros((len(rows), length), dtype=np.int64)
    spans: list[tuple[tuple[int, int], ...]] = []
    for index, row in enumerate(rows):
        spans.append(tuple(pairwise([0, *accumulate(len(sample) for sample in row)])))
        start = 0
        for sample in row:
            end = start + len(sample)
            input_ids[index, start:end] = sample.ids
            position_ids[index, start:end] = np.arange(end - start)
            if sample.targets is None:
                labels[index, start:end] = np.where(sample.trained, sample.ids, IGNORED)
                # The token before belongs to another sample, so it must not be asked to predict this one.
                labels[index, start] = IGNORED
            else:
                labels[index, start + 1 : end + 1] = np.where(sample.trained, sample.targets, IGNORED)
            start = end
        position_ids[index, start:] = np.arange(length - start)
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(labels),
        torch.from_numpy(position_ids),
        tuple(sample.id for row in rows for sample in row),
        sum(len(sample) for row in rows for sample in row),
        sum(len(sample) * (len(sample) + 1) // 2 for row in rows for sample in row),
        tuple(spans),
    )


def _share(total: int, place: int, parts: int) -> int:
    return total * (place + 1) // parts - total * place // parts
