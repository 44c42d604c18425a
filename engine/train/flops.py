"""What a step's tokens cost in floating-point operations, by the conventions that published figures follow.

A weight that a token meets in a matrix product costs 2 operations forward, 2 for the gradient of what it was
multiplied with, and 2 for its own gradient if it trains: 6 a weight and token, or 4 where it is frozen. Attention
multiplies each token with those it may look at, twice a layer: 12 x layers x heads x head size a pair, forward and
backward (PaLM, arXiv 2204.02311, appendix B, which counts all pairs; here those that a causal mask within a sample
leaves). Recomputed activations, norms and padding are not counted: no model asks for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Work:
    """What was computed on: tokens, trained ones among them, and pairs of tokens (see `Batch.attended`)."""

    tokens: int
    trained_tokens: int
    attended: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Elements of a model, whole, whatever a strategy or four bits have made of them.

    Attributes:
        total: of all parameters.
        trained: of those that train.
        products: of matrices a token is multiplied with: no lookups, no vectors, of experts those a token meets.
        products_trained: of those that train among them.
        head: of the output head, which is one of these matrices.
        head_trained: of it, what trains: all or nothing.
        width: layers that attend x heads x head size.
    """

    total: int
    trained: int
    products: int
    products_trained: int
    head: int
    head_trained: int
    width: int

    def six(self, work: Work) -> float:
        """FLOPs as if every weight trained: `6 N`."""
        return 6.0 * self.products * work.tokens + self._attention(work)

    def four(self, work: Work) -> float:
        """FLOPs without the gradients of frozen weights: `4 N` for those, `6 N` for the others."""
        weights = 4.0 * self.products + 2.0 * self.products_trained
        return weights * work.tokens + self._attention(work)

    def needed(self, work: Work) -> float:
        """What a step has to compute: as `four`, and the output head for trained tokens only."""
        head = 4.0 * self.head + 2.0 * self.head_trained
        return self.four(work) - head * (work.tokens - work.trained_tokens)

    def _attention(self, work: Work) -> float:
        return 12.0 * self.width * work.attended


def weights(model: Any) -> Weights:
    """Count a model's elements, under any strategy, adapter and quantisation.

    Low-rank and other adapters are counted as the matrices they hold. Linear attention is not counted, and a window of
    attention as if it were none.
    """
    config = model.config.get_text_config()
    head = getattr(model.get_output_embeddings(), "weight", None)
    total = trained = products = products_trained = head_size = head_trained = 0
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        module = modules[owner]
        size, dimensions = _size(module, leaf, parameter)
        learns = parameter.requires_grad
        total += size
        trained += size * learns
        is_head = parameter is head
        # A copy that PEFT trains stands in for the original, which then computes nothing.
        idle = ".original_module." in name
        if dimensions < 2 or idle or (isinstance(module, nn.Embedding) and not is_head):
            continue
        met = round(size * _share_of_experts(config, dimensions, _shape(parameter)))
        products += met
        products_trained += met * learns
        if is_head:
            head_size, head_trained = met, met * learns
    return Weights(total, trained, products, products_trained, head_size, head_trained, _width(config))


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _size(module: nn.Module, leaf: str, parameter: nn.Parameter) -> tuple[int, int]:
    """Elements and dimensions: a four-bit matrix is stored as packed words, and only its layer knows its shape."""
    if leaf == "weight" and isinstance(module, nn.Linear):
        return module.in_features * module.out_features, 2
    shape = _shape(parameter)
    return math.prod(shape), len(shape)


def _share_of_experts(config: Any, dimensions: int, shape: tuple[int, ...]) -> float:
    """Of a tensor that holds all experts: the share of them that a token is sent to."""
    count = next(
        (
            value
            for key in ("num_local_experts", "num_experts", "n_routed_experts")
            if (value := getattr(config, key, None))
        ),
        None,
    )
    chosen = getattr(config, "num_experts_per_tok", None)
    return chosen / count if count and chosen and dimensions == 3 and shape[0] == count else 1.0


def _width(config: Any) -> int:
    kinds = getattr(config, "layer_types", None) or ()
    layers = config.num_hidden_layers - sum(kind == "linear_attention" for kind in kinds)
    heads = config.num_attention_heads
    return layers * heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
