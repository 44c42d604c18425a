"""Attention of a row's samples, one after another: what no token may see is not computed, and no mask is needed.

A row of several samples wants a mask of tokens x tokens, and with it torch multiplies what the mask then drops. A
sample by itself is causal, which its kernels know; the padding behind the last sample is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.config import VIRTUAL, Run
from engine.dist import World
from engine.errors import WishError
from engine.model.ulysses import Ulysses

NAME = "by_sample"
"""The attention's name in transformers."""
LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers whose attention needs no more than a causal row, or its last tokens."""
UNSTEADY = {"dynamic", "longrope"}
"""Rotary positions whose frequencies depend on the longest position in sight, which differs between parts of a row."""
STRANGE = ("softcap", "s_aux", "position_bias")
"""What some models give their attention, and torch's kernels do not take."""
STRIDE = 32
"""Tokens that lengths are multiples of where each new one costs memory: see `_stride`."""
Spans = tuple[tuple[tuple[int, int], ...], ...]
"""Where samples begin and end in each row of a micro-batch."""


class SampleAttention:
    """The attention of a model in training: by samples, of `size` neighbouring ranks that share rows, or of one.

    Outside of `spread` a model that was given it computes torch's own attention, on this rank alone: in in-loop
    evaluation, and in probes.

    Attributes:
        tells_samples_apart: whether a long row of many samples costs what they cost, as with FlashAttention too.
    """

    def __init__(self, run: Run, world: World) -> None:
        self.size = run.parallel.sequence
        self._wanted = run.model.attention == "auto" and run.adapter.kind not in VIRTUAL
        # Loops over samples would be compiled anew for each number of them.
        self._compute = torch.compiler.disable(self._attention) if run.model.compile else self._attention
        self._place = world.rank % self.size
        self.tells_samples_apart = run.model.attention.startswith("flash")
        self._spans: Spans | None = None
        self._ulysses: Ulysses | None = None
        if self.size > 1:
            group = world.neighbours(self.size, timeout_seconds=run.parallel.timeout_seconds)
            self._ulysses = Ulysses(group, self.size)

    def serve(self, model: Any) -> None:
        """Become the attention of a model, where that is possible and the Run leaves it open.

        Raises:
            WishError: ranks are to share rows, and its attention cannot be replaced, or it mixes tokens elsewhere too.
        """
        why = _why_not(model, self.size)
        if why and self.size > 1:
            raise WishError(
                f"parallel.sequence is {self.size} and {type(model).__name__} does not allow it: {why}",
                "use parallel.sequence 1; model.activation_checkpointing and zero3 make room for longer rows",
            )
        if why or not (self._wanted or self.size > 1):
            return
        AttentionInterface.register(NAME, self._compute)
        AttentionMaskInterface.register(NAME, self._mask)
        model.set_attn_implementation(NAME)
        self.tells_samples_apart = True

    @contextlib.contextmanager
    def spread(self, spans: Spans | None) -> Iterator[None]:
        """Forward and backward within this block are of these samples, or of this rank's part of their rows (then a
        collective of the group).

        Args:
            spans: of the whole rows; None: torch's own attention after all.
        """
        self._spans = spans
        try:
            yield
        finally:
            self._spans = None

    def part(self, whole: Tensor) -> Tensor:
        """This rank's columns of a tensor [rows, length, ...]."""
        length = whole.shape[1] // self.size
        return whole[:, self._place * length : (self._place + 1) * length]

    def _mask(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """No mask where samples are told apart by where they begin."""
        mask: Tensor | None = sdpa_mask(*args, **kwargs) if self._spans is None else None
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
        if self._spans is None:
            plain: tuple[Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, **options
            )
            return plain
        strange = [name for name in STRANGE if options.get(name) is not None]
        if strange:
            raise WishError(
                f"this model's attention has {strange[0]}, which is not computed a sample at a time",
                "set model.attention to eager and parallel.sequence to 1",
            )
        wish = {"dropout_p": options.get("dropout", 0.0), "scale": options.get("scaling")}
        window = options.get("sliding_window")
        if self._ulysses is None:
            return _by_sample([query, key, value], self._spans, window, wish), None
        whole = self._ulysses.gather_tokens(query, key, value)
        return self._ulysses.gather_heads(_by_sample(whole, self._spans, window, wish).transpose(1, 2)), None


def spans_of(positions: Tensor) -> Spans:
    """Samples by the positions [rows, length] of whole rows: one begins at each 0, a padding tail being one too."""
    length = positions.shape[1]
    starts = [row.eq(0).nonzero().flatten().tolist() for row in positions]
    return tuple(tuple(zip(each, [*each[1:], length], strict=True)) for each in starts)


def _by_sample(whole: list[Tensor], spans: Spans, window: int | None, wish: dict[str, Any]) -> Tensor:
    """Attention of whole rows, [rows, heads, tokens, width] in, [rows, tokens, heads, width] out, in which order its
    kernels write; zero where no sample is."""
    length, stride = whole[0].shape[2], _stride(whole[0])
    rows = []
    for samples, *row in zip(spans, *(_parts(x, [1] * len(spans), 0) for x in whole), strict=True):
        # A row of padding goes its way too, so that every weight has a gradient on every rank.
        sizes = [end - start for start, end in samples] or [length]
        rest = length - sum(sizes)
        cuts = (_parts(x, [*sizes, rest] if rest else sizes, 2) for x in row)
        pieces = [
            causal(*(_rounded(x, stride) for x in inputs), window=window, **wish)[:, :, :size].transpose(1, 2)
            for size, inputs in zip(sizes, zip(*cuts, strict=True), strict=False)
        ]
        if rest:
            pieces.append(pieces[0].new_zeros(1, rest, *pieces[0].shape[2:]))
        rows.append(_joined(pieces, 1))
    return _joined(rows, 0)


def _stride(example: Tensor) -> int:
    """What lengths are rounded up to: a sample sees nothing of what is behind it.

    torch (2.13) compiles a 16-bit kernel for each length it meets on a CPU, and keeps it: a MiB or more each.
    """
    return STRIDE if example.device.type == "cpu" and example.dtype in (torch.bfloat16, torch.float16) else 1


def _rounded(sample: Tensor, stride: int) -> Tensor:
    """A sample [1, heads, tokens, width] with zeros behind it up to a multiple of `stride` tokens."""
    missing = -sample.shape[2] % stride
    return torch.nn.functional.pad(sample, (0, 0, 0, missing)) if missing else sample


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


def _parts(whole: Tensor, sizes: list[int], dim: int) -> Sequence[Tensor]:
    # Split in one go: the gradient of one slice alone is as large as the whole.
    return whole.split(sizes, dim) if len(sizes) > 1 else (whole,)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _why_not(model: Any, size: int) -> str | None:
    """Why a model's attention cannot be replaced; with ranks that share rows, no other layer may mix tokens either."""
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = set(getattr(config, "layer_types", None) or LAYERS) - LAYERS
    tables = [rotary, *(each for each in rotary.values() if isinstance(each, dict))]
    unsteady = {str(each.get("rope_type")) for each in tables} & UNSTEADY
    if config.num_attention_heads % size:
        return f"it has {config.num_attention_heads} attention heads"
    if model.config._attn_implementation != "sdpa":
        return f"transformers computes its attention by {model.config._attn_implementation}, not sdpa"
    if not (model._can_set_attn_implementation() and model._supports_flash_attn):
        return "its attention cannot be replaced"
    if kinds:
        return f"it has layers of kind {', '.join(sorted(kinds))}, which need the whole row"
    if unsteady and size > 1:
        return (
            f"its rotary positions are {', '.join(unsteady)}, and depend on the longest position of the row"
        )
    return None
