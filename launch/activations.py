"""What a forward pass leaves for backward, byte by byte: decoder layers, output head, and gradients in passing."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from engine.config import Adapter
from launch.architecture import Architecture

FULL_PRECISION = 4
CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits in a chunk of the loss: `engine.model.head.ELEMENTS`, which floor 0 may not import; a test compares them."""
ID = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch of one rank.

    Attributes:
        rows: rows in it.
        length: tokens of a row that are on this rank.
        width: bytes of an activation: 2 in bf16 and fp16, 4 in fp32.
        trained: columns whose logits are computed; at most length - 1, as the first token has no prediction.
        attention: its name in transformers; `auto` takes a sample at a time by sdpa.
        dropped: bytes of one element of a dropout mask: 1 on CUDA, and the activation's own width on CPU.
        sharing: ranks that share a row (`parallel.sequence`).
    """

    rows: int
    length: int
    width: int
    trained: int
    attention: str
    dropped: int = 1
    sharing: int = 1

    @property
    def tokens(self) -> int:
        """Tokens in it, padding included."""
        return self.rows * self.length

    @property
    def masked(self) -> bool:
        """Whether a mask [rows, 1, length, length] tells attention which of a packed row's tokens belong together;
        FlashAttention is told by lengths."""
        return not self.by_sample and not self.attention.startswith("flash")

    @property
    def by_sample(self) -> bool:
        """Whether attention takes a sample at a time (`engine.model.attention`)."""
        return self.sharing > 1 or self.attention == "auto"


def layer_saved(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Bytes one decoder layer keeps for backward.

    Counted from the modules of transformers 5 and torch's derivatives.yaml, and checked against MemTracker in
    benchmarks/plan_memory.py; the method is that of Korthikanti et al., arXiv 2205.05198, section 4.
    """
    per_token = _attention_saved(model, batch, adapter) + _mlp_saved(model, batch, adapter)
    per_token += _norms_saved(model, batch, adapter)
    per_token += 2 * model.shape.hidden * batch.dropped * model.drops
    if adapter.kind != "full":
        per_token += _adapter_saved(model, batch, adapter)
    return batch.tokens * per_token + _merged_experts(model, batch, adapter)


def _merged_experts(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Experts with adapters: PEFT adds the adapter to the weights, and backward keeps that sum, a layer at a time."""
    if model.experts is None or adapter.kind == "full" or not model.adapts_experts(adapter):
        return 0
    return batch.width * model.experts.count * 3 * model.shape.hidden * model.experts.intermediate


def _norms_saved(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Two norms before attention and MLP, a token; their output is the input of the linear layers behind them."""
    hidden, width, full = model.shape.hidden, batch.width, adapter.kind == "full"
    inputs = hidden * width * (adapter.dropout == 0 or full)
    if not model.rms:
        return 2 * (hidden * width + inputs)
    # x in fp32, 1 / rms, and the normalised x where the norm's weight wants a gradient.
    return 2 * (FULL_PRECISION * (hidden + 1) + width * hidden * full + inputs)


def _attention_saved(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Attention, a token: query, key, value, output; log-sum-exp or, in eager attention, the probabilities.

    transformers repeats key and value for every query head where there is a mask (`use_gqa_in_sdpa`), and torch
    turns a boolean mask into numbers once a layer (`convert_boolean_attn_mask`).
    """
    size, width = model.shape, batch.width
    query, key = size.heads * size.head_dim, size.kv_heads * size.head_dim
    eager = batch.attention == "eager"
    pair = 2 * query if batch.masked or eager else 2 * _dealt(model, batch)
    saved = width * (query + pair)
    if eager:
        saved += width * query + size.heads * batch.length * (
            FULL_PRECISION + width * (width < FULL_PRECISION)
        )
    else:
        saved += width * query + FULL_PRECISION * size.heads + width * batch.length * batch.masked
    if batch.by_sample and (adapter.kind == "full" or adapter.dropout == 0):
        saved += (
            width * query
        )  # samples joined, or what comes back from other ranks, is the output layer's input
    if model.head_norms:
        # Each is an RMSNorm over a head's size: as much as over the hidden size, for as many numbers.
        saved += (query + key) * (FULL_PRECISION + width * (adapter.kind == "full"))
        saved += FULL_PRECISION * (size.heads + size.kv_heads)
    return saved


def _dealt(model: Architecture, batch: Batch) -> int:
    """Numbers of a token's key, or value: heads are repeated until ranks that share a row have equally many."""
    return lcm(model.shape.kv_heads, batch.sharing) * model.shape.head_dim


def exchanged(model: Architecture, batch: Batch) -> int:
    """Bytes a rank holds for the others in one layer's forward: query, key, value before attention, output after."""
    query = model.shape.heads * model.shape.head_dim
    return batch.tokens * batch.width * 2 * (query + _dealt(model, batch)) * (batch.sharing > 1)


def _mlp_saved(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """The MLP, a token: gate, its activation, up, and their product; or the inner sum and its activation."""
    size, width = model.shape, batch.width
    if model.experts:
        active, inner = model.experts.active, model.experts.intermediate
        routed = active * width * (2 * size.hidden + 4 * inner)
        return routed + FULL_PRECISION * (model.experts.count + 2 * active) + width * active
    last = adapter.kind == "full" or adapter.dropout == 0
    if model.gated:
        return width * size.intermediate * (3 + last)
    # GPT-2's tanh approximation is written out in Python and keeps three more factors; others are one kernel.
    written_out = 3 if not model.rotary else 0
    return width * size.intermediate * (1 + written_out + last)


def _adapter_saved(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Low-rank adapters, a token: the inner activations, and with dropout each target's own input and mask."""
    targets = model.targets(adapter)
    saved = batch.width * adapter.rank * len(targets)
    if adapter.dropout:
        saved += sum(one.inputs * (batch.width + batch.dropped) for one in targets)
    return saved


def inputs(model: Architecture, batch: Batch) -> int:
    """Bytes of the inputs of all decoder layers: what checkpointing (arXiv 1604.06174) keeps of them."""
    return model.shape.layers * batch.tokens * model.shape.hidden * batch.width


def saved(
    model: Architecture, batch: Batch, adapter: Adapter, *, checkpointing: bool, offload: bool = False
) -> int:
    """Bytes all decoder layers and what is around them keep for backward, output head and loss left out.

    With offload the layers' inputs are on the host, but for the one at work.
    """
    size, full = model.shape, adapter.kind == "full"
    layers = inputs(model, batch) if checkpointing else size.layers * layer_saved(model, batch, adapter)
    if offload:
        layers //= size.layers
    last_norm = batch.tokens * (FULL_PRECISION * (size.hidden + 1) + batch.width * size.hidden * full)
    if not model.rms:
        last_norm = batch.tokens * size.hidden * batch.width
    rotary = 2 * batch.width * size.head_dim * batch.tokens if model.rotary else 0
    mask = batch.tokens * batch.length if batch.masked else 0
    # Nothing before the first adapter wants a gradient, so the first norm keeps its output only.
    unwanted = (
        0 if full or checkpointing or not model.rms else batch.tokens * FULL_PRECISION * (size.hidden + 1)
    )
    ids = 2 * ID * batch.tokens
    return layers + last_norm + rotary + mask + ids - unwanted


def layer_passing(model: Architecture, batch: Batch, adapter: Adapter) -> int:
    """Bytes alive at once in one layer's backward, at most: gradients of activations at the product of the MLP, and a
    4-bit weight that is unpacked for its own product."""
    size, width = model.shape, batch.width
    inner = size.intermediate
    if model.experts:
        inner = model.experts.active * model.experts.intermediate
    unpacked = width * max(one.weights for one in model.linears) * (adapter.kind == "qlora")
    return batch.tokens * width * (size.hidden + (2 if model.gated else 1) * inner) + unpacked


@dataclass(frozen=True, slots=True)
class Head:
    """Bytes of the output head and the loss alive at most in forward, and at most in backward."""

    forward: int
    backward: int


def head(model: Architecture, batch: Batch, adapter: Adapter, *, chunk: int) -> Head:
    """The loss in the output head, `chunk` logits at a time (`engine.model.head`); `chunk` 0: from logits, all at once.

    In forward: the trained positions' hidden states and their gradient, one chunk's logits twice (a logarithm of sums,
    or a rounded copy), and the head's gradient, which is summed in fp32 where there are several chunks. What is kept
    for backward is the gradients.
    """
    if not chunk:
        return _head_from_logits(model, batch, adapter)
    rows, width, hidden = batch.rows * batch.trained, batch.width, model.shape.hidden
    vocabulary = model.shape.vocabulary
    step = max(1, chunk // vocabulary)
    logits = min(rows, step) * vocabulary
    weight = vocabulary * hidden * (adapter.kind == "full")
    narrow = width if width < FULL_PRECISION else 0
    # Chunks' products are added in fp32: in place where they are of fp32, else beside the sum.
    summed = weight * (width + (FULL_PRECISION if rows > step and narrow else 0))
    states, targets = rows * hidden * width, 2 * ID * rows
    most = max(2 * FULL_PRECISION * logits, (FULL_PRECISION + narrow) * logits + summed)
    whole = batch.tokens * hidden * width
    return Head(2 * states + targets + most, states + weight * width + targets + whole)


def _head_from_logits(model: Architecture, batch: Batch, adapter: Adapter) -> Head:
    """Logits, their fp32 copy, log-probabilities, and their gradients.

    torch keeps the log-probabilities, and in backward holds them beside the gradients of both sides of the softmax.
    """
    rows = batch.rows * batch.trained
    vocabulary, width = model.shape.vocabulary, batch.width
    logits, wide = rows * vocabulary * width, rows * vocabulary * FULL_PRECISION
    copy = wide if width < FULL_PRECISION else 0
    inputs = rows * model.shape.hidden * width * (adapter.kind == "full")
    targets = 2 * ID * rows
    return Head(logits + copy + wide + inputs + targets, 3 * wide + inputs + targets)
