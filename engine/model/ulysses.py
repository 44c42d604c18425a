"""Rows longer than one rank has room for: neighbouring ranks share their tokens, and exchange heads in attention.

All but attention works on one token at a time, so a rank can do it for its part of a row alone. Attention needs the
whole row, but for one head at a time: before it ranks swap tokens of all heads for all tokens of some heads, and after
it they swap back (DeepSpeed Ulysses, arXiv 2309.14509).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from math import lcm
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.config import Run
from engine.dist import World
from engine.errors import WishError

NAME = "ulysses"
"""The attention's name in transformers."""
LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers whose attention needs no more than a causal row, or its last tokens."""
UNSTEADY = {"dynamic", "longrope"}
"""Rotary positions whose frequencies depend on the longest position in sight, which differs between parts of a row."""
Samples = list[list[tuple[int, int]]]
"""Where samples begin and end in each row of a micro-batch, the padding tail being one."""


class Ulysses:
    """The attention of `size` neighbouring ranks that share rows; with a `size` of 1 it does nothing.

    Outside of `spread` a model that was given this attention computes torch's own, on this rank alone: in probes and
    in-loop evaluation.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.size = run.parallel.sequence
        self._place = world.rank % self.size
        self._samples: Samples | None = None
        if self.size > 1:
            self._group = world.neighbours(self.size, timeout_seconds=run.parallel.timeout_seconds)
            AttentionInterface.register(NAME, self._attention)
            AttentionMaskInterface.register(NAME, self._mask)

    def serve(self, model: Any) -> None:
        """Become the attention of a model.

        Raises:
            WishError: its attention cannot be replaced, or it mixes tokens elsewhere too.
        """
        if self.size > 1:
            _demand_replaceable(model, self.size)
            model.set_attn_implementation(NAME)

    @contextlib.contextmanager
    def spread(self, whole: Tensor | None) -> Iterator[None]:
        """Forward and backward within this block are of this rank's part of rows (a collective of the group).

        Args:
            whole: positions [rows, length] of the whole rows, in host memory; None: nothing is shared.
        """
        self._samples = None if whole is None else _samples(whole)
        try:
            yield
        finally:
            self._samples = None

    def part(self, whole: Tensor) -> Tensor:
        """This rank's columns of a tensor [rows, length, ...]."""
        length = whole.shape[1] // self.size
        return whole[:, self._place * length : (self._place + 1) * length]

    def _mask(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """No mask for a part of a row: samples are told apart by where they begin."""
        mask: Tensor | None = sdpa_mask(*args, **kwargs) if self._samples is None else None
        return mask

    def _attention(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Attention as transformers calls it: heads [rows, heads, tokens, size] in, [rows, tokens, heads, size] out."""
        if self._samples is None:
            plain: tuple[Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, **options
            )
            return plain
        unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
        if unknown:
            raise WishError(
                f"parallel.sequence is {self.size} and this model's attention has {unknown[0]}",
                "use parallel.sequence 1 with this model",
            )
        heads = query.shape[1]
        # Key heads that can be dealt out to all ranks; it divides the query heads, as both its factors do.
        shared = lcm(key.shape[1], self.size)
        key, value = (x.repeat_interleave(shared // x.shape[1], dim=1) for x in (key, value))
        whole = self._gather_tokens(query, key, value)
        wish = {"dropout_p": options.get("dropout", 0.0), "scale": options.get("scaling")}
        return self._gather_heads(self._by_sample(whole, options.get("sliding_window"), wish), heads), None

    def _by_sample(self, whole: list[Tensor], window: int | None, wish: dict[str, Any]) -> Tensor:
        """Attention of whole rows: of each row's samples, one after another."""
        rows = []
        for row, samples in enumerate(self._samples or []):
            pieces = ([x[row : row + 1, :, start:end] for x in whole] for start, end in samples)
            rows.append(_joined([causal(*piece, window=window, **wish) for piece in pieces], 2))
        return _joined(rows, 0)

    def _gather_tokens(self, *parts: Tensor) -> list[Tensor]:
        """Tensors [rows, heads, tokens / size, width] to [rows, heads / size, tokens, width], in one exchange."""
        sent = [x.unflatten(1, (self.size, -1)).movedim(1, 0).flatten(1) for x in parts]
        got = _Exchange.apply(torch.cat(sent, dim=1), self._group)
        whole = []
        for x, flat in zip(parts, got.split([each.shape[1] for each in sent], dim=1), strict=True):
            rows, heads, tokens, width = x.shape
            here = flat.view(self.size, rows, heads // self.size, tokens, width)
            whole.append(here.permute(1, 2, 0, 3, 4).flatten(2, 3))
        return whole

    def _gather_heads(self, output: Tensor, heads: int) -> Tensor:
        """[rows, heads / size, tokens, width] to [rows, tokens / size, heads, width]."""
        sent = output.unflatten(2, (self.size, -1)).movedim(2, 0).contiguous()
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


def causal(query: Tensor, key: Tensor, value: Tensor, *, window: int | None, **options: Any) -> Tensor:
    """Causal attention of one sample [1, heads, tokens, width], without a mask of tokens x tokens.

    Where a token sees the last `window` tokens only, queries are taken a window at a time, so that what a mask covers
    is two windows wide.
    """
    length = query.shape[2]
    if window is None or length <= window:
        return _attend(query, key, value, is_causal=True, **options)
    outputs = []
    for start in range(0, length, window):
        end, first = min(start + window, length), max(0, start - window + 1)
        at = torch.arange(start, end, device=query.device)[:, None]
        seen = torch.arange(first, end, device=query.device)[None]
        mask = (seen <= at) & (seen > at - window)
        inputs = (query[:, :, start:end], key[:, :, first:end], value[:, :, first:end])
        outputs.append(_attend(*inputs, attn_mask=mask, **options))
    return _joined(outputs, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """torch's attention, key heads shared by groups of query heads."""
    groups = query.shape[1] // key.shape[1]
    # On CUDA only FlashAttention shares key heads: 16 bits and no mask. Other kernels would write all scores down.
    alone = query.is_cuda and (query.dtype == torch.float32 or "attn_mask" in options)
    if groups > 1 and alone:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, enable_gqa=groups > 1 and not alone, **options)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _samples(whole: Tensor) -> Samples:
    length = whole.shape[1]
    starts = [row.eq(0).nonzero().flatten().tolist() for row in whole]
    return [list(pairwise([*each, length])) for each in starts]


def _demand_replaceable(model: Any, size: int) -> None:
    """Attention must go through transformers' interface, and no other layer may mix tokens of a row."""
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = set(getattr(config, "layer_types", None) or LAYERS) - LAYERS
    tables = [rotary, *(each for each in rotary.values() if isinstance(each, dict))]
    unsteady = {str(each.get("rope_type")) for each in tables} & UNSTEADY
    why = None
    if config.num_attention_heads % size:
        why = f"it has {config.num_attention_heads} attention heads"
    elif model.config._attn_implementation != "sdpa":
        why = f"transformers computes its attention by {model.config._attn_implementation}, not sdpa"
    elif not (model._can_set_attn_implementation() and model._supports_flash_attn):
        why = "its attention cannot be replaced"
    elif kinds:
        why = f"it has layers of kind {', '.join(sorted(kinds))}, which need the whole row"
    elif unsteady:
        why = f"its rotary positions are {', '.join(unsteady)}, and depend on the longest position of the row"
    if why:
        raise WishError(
            f"parallel.sequence is {size} and {type(model).__name__} does not allow it: {why}",
            "use parallel.sequence 1; model.activation_checkpointing and zero3 make room for longer rows",
        )
