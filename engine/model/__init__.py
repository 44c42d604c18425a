"""Weights: load, adapt, and probe what they can be trusted with."""

from engine.model.adapt import adapt, published, with_adapter
from engine.model.head import LossHead, loss_head
from engine.model.load import DTYPES, load_dequantised, load_model, unsharded
from engine.model.probe import demand_exact_packing, packing_difference

__all__ = [
    "DTYPES",
    "LossHead",
    "adapt",
    "demand_exact_packing",
    "load_dequantised",
    "load_model",
    "loss_head",
    "packing_difference",
    "published",
    "unsharded",
    "with_adapter",
]
