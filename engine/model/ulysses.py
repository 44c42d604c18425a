"""Rows longer than one rank has room for: neighbouring ranks share their tokens, and exchange heads in attention.

All but attention works on one token at a time, so a rank can do it for its part of a row alone. Attention needs the
whole row, but for one head at a time: before it ranks swap tokens of all heads for all tokens of some heads, and after
it they swap back (DeepSpeed Ulysses, arXiv 2309.14509).
"""

from __future__ import annotations

from math import lcm
from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Ulysses:
    """The exchange between `size` neighbouring ranks.

    Args:
        group: the ranks, as torch.distributed knows them.
        size: how many they are.
    """

    def __init__(self, group: Any, size: int) -> None:
        self._group = group
        self._size = size

    def gather_tokens(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Tensors [rows, heads, tokens / size, width] to [rows, heads / size, tokens, width], in one exchange."""
        # Key heads that can be dealt out to all ranks; it divides the query heads, as both its factors do.
        shared = lcm(key.shape[1], self._size)
        parts = [query, *(x.repeat_interleave(shared // x.shape[1], dim=1) for x in (key, value))]
        sent = [x.unflatten(1, (self._size, -1)).movedim(1, 0).flatten(1) for x in parts]
        got = _Exchange.apply(torch.cat(sent, dim=1), self._group)
        whole = []
        for x, flat in zip(parts, got.split([each.shape[1] for each in sent], dim=1), strict=True):
            rows, heads, tokens, width = x.shape
            here = flat.view(self._size, rows, heads // self._size, tokens, width)
            whole.append(here.permute(1, 2, 0, 3, 4).flatten(2, 3))
        return whole

    def gather_heads(self, output: Tensor) -> Tensor:
        """[rows, heads / size, tokens, width] to [rows, tokens / size, heads, width]."""
        sent = output.unflatten(2, (self._size, -1)).movedim(2, 0).contiguous()
        got: Tensor = _Exchange.apply(sent, self._group)
        return got.permute(1, 3, 0, 2, 4).flatten(2, 3)


class _Exchange(torch.autograd.Function):
    """Send the n-th slice of a contiguous tensor to the n-th rank of a group; gradients take the same way back."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, group: Any) -> Tensor:
        """Slices received, in the order of ranks."""
        ctx.group = group
        got = torch.empty_like(sent)
        torch.distributed.all_to_all_single(got, sent, group=group)
        return got

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """An exchange is its own inverse, and so its own transpose."""
        sent = grad.contiguous()
        got = torch.empty_like(sent)
        torch.distributed.all_to_all_single(got, sent, group=ctx.group)
        return got, None
