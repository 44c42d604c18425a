"""Weights: load, adapt, and probe what they can be trusted with."""

from engine.model.adalora import Orthogonality
from engine.model.adapt import adapt, published, with_adapter
from engine.model.adversary import Adversary
from engine.model.attention import SampleAttention, Spans, spans_of
from engine.model.float8 import converted, use_float8
from engine.model.head import LossHead, loss_head
from engine.model.layers import graphs, set_layers
from engine.model.load import DTYPES, load_dequantised, load_model, unsharded
from engine.model.noise import EmbeddingNoise
from engine.model.probe import (
    demand_exact_packing,
    demand_exact_sharing,
    exact,
    packing_difference,
    sharing_difference,
)
from engine.model.prompts import virtual_tokens

__all__ = [
    "Adversary",
    "DTYPES",
    "EmbeddingNoise",
    "LossHead",
    "Orthogonality",
    "SampleAttention",
    "Spans",
    "adapt",
    "converted",
    "demand_exact_packing",
    "demand_exact_sharing",
    "exact",
    "graphs",
    "load_dequantised",
    "load_model",
    "loss_head",
    "packing_difference",
    "published",
    "set_layers",
    "sharing_difference",
    "spans_of",
    "unsharded",
    "use_float8",
    "virtual_tokens",
    "with_adapter",
]
