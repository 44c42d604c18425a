"""Matrix products of the layers in 8 bits, by torchao: weights, activations and gradients stay in 16.

An operand is scaled to the range of e4m3 or e5m2 (arXiv 2209.05433) just before its product. Validation and generation
compute in 16 bits, as will whoever loads the result.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.errors import WishError

OFFERED = (8, 9)
"""CUDA's compute capability from which on tensor cores take 8-bit floats."""
MULTIPLE = 16
"""What those want the sides of a matrix to be multiples of."""


def use_float8(model: Any, recipe: str, device: torch.device) -> None:
    """Let a model's layers compute in 8 bits while it trains; on CPU by an emulation, as slow as it is faithful.

    Args:
        model: before it is wrapped; names and values of its weights stay as they are.
        recipe: torchao's name of how operands are scaled.
        device: where it will compute.

    Raises:
        WishError: torchao is missing, the GPU has no such products, or no layer's sides suit them.
    """
    if device.type == "cpu":
        # It warns of each CUDA library that it cannot load, and an emulation needs none.
        logging.getLogger("torchao").setLevel(logging.ERROR)
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise WishError(
            f"parallel.float8 is {recipe} and torchao is not installed", "pip install 'temper-llm[float8]'"
        ) from None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < OFFERED:
        raise WishError(
            f"parallel.float8 is {recipe} and {torch.cuda.get_device_name(device)} multiplies no 8-bit floats",
            "use an H100, an L40S, an RTX 4090 or later, or set parallel.float8 to none",
        )
    suitable = {
        id(linear)
        for layer in model.modules()
        if isinstance(layer, GradientCheckpointingLayer)
        for linear in layer.modules()
        if type(linear) is torch.nn.Linear and not (linear.in_features | linear.out_features) % MULTIPLE
    }
    if not suitable:
        raise WishError(
            f"parallel.float8 is {recipe} and no layer of {type(model).__name__} has linear parts whose sides are "
            f"multiples of {MULTIPLE}",
            "set parallel.float8 to none",
        )
    config = dataclasses.replace(
        Float8LinearConfig.from_recipe_name(recipe),
        emulate=device.type != "cuda",
        # The number of tokens is a side of the weights' gradient.
        pad_inner_dim=True,
    )
    convert_to_float8_training(
        model, config=config, module_filter_fn=lambda module, name: id(module) in suitable
    )
    for linear in converted(model):
        linear.forward = partial(_forward, linear)  # type: ignore[method-assign]


def converted(model: Any) -> list[torch.nn.Linear]:
    """The parts of a model that compute in 8 bits."""
    return [one for one in model.modules() if type(one).__name__ == "Float8Linear"]


def _forward(linear: torch.nn.Linear, states: Tensor) -> Tensor:
    if linear.training:
        return type(linear).forward(linear, states)
    return torch.nn.functional.linear(states, linear.weight, linear.bias)
