"""How decoder layers run in training: compiled or not, and what of theirs waits for backward, and where.

transformers calls a layer in training through a function that may be set (`_gradient_checkpointing_func`); this is it.
Validation and generation run the plain layers: they are of eval mode, and their lengths vary too much to compile for.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.config import Model
from engine.errors import WishError

# torch switches its compiler off for all that `checkpoint` calls; unwrapped, it leaves compiled layers compiled.
_CHECKPOINT = inspect.unwrap(checkpoint)


def set_layers(model: Any, wish: Model) -> None:
    """Make a model's layers run as the Run's model section says; after `adapt`, as PEFT reacts to what it finds.

    Raises:
        WishError: the model has no layers that transformers lets one call differently, or no compiler is there.
    """
    if not (wish.compile or wish.activation_checkpointing):
        return
    # A model of somebody's own code may call its layers itself, through the same function; it is not compiled then.
    kind = GradientCheckpointingLayer if wish.compile else torch.nn.Module
    callers = [
        one for one in model.modules() if isinstance(one, kind) and hasattr(one, "gradient_checkpointing")
    ]
    key = "compile" if wish.compile else "activation_checkpointing"
    if not callers:
        raise WishError(
            f"model.{key} is on and {type(model).__name__} does not let its layers be called differently",
            f"set model.{key} to false",
        )
    on_gpu = model.device.type == "cuda"
    if wish.compile:
        _demand_compiler(on_gpu=on_gpu)
    call = LayerCall(wish, pinned=on_gpu)
    for caller in callers:
        caller.gradient_checkpointing = True
        caller._gradient_checkpointing_func = call


def _demand_compiler(*, on_gpu: bool) -> None:
    """torch's own complaint comes in the first step, behind a page of its innards."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if on_gpu and importlib.util.find_spec("triton") is None:
        raise WishError(
            "model.compile is on and Triton is not installed", "pip install triton, or turn it off"
        )
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise WishError(
            f"model.compile is on and no C++ compiler works (CXX is {os.environ.get('CXX', 'not set')})",
            "install g++, e.g. apt install g++, or turn it off",
        ) from None


class LayerCall:
    """Calls a layer in training, in transformers' place.

    Attributes:
        pinned: whether what is moved to the host goes to page-locked memory, so that the device is not waited for.
    """

    def __init__(self, wish: Model, *, pinned: bool) -> None:
        self._wish = wish
        self.pinned = pinned
        self._compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, layer: Callable[..., Any], *inputs: Tensor) -> Any:
        """A layer's output for its inputs, the first of them [rows, tokens, hidden size]; `layer` holds all else."""
        if self._wish.compile:
            layer = self._one_for_all(layer)
        if not self._wish.activation_checkpointing:
            return layer(*inputs)
        if not self._wish.activation_offload:
            return _recomputed(layer, *inputs)
        # The checkpoint's own hooks, further in, take whatever the layer saves: here only its inputs arrive.
        with save_on_cpu(pin_memory=self.pinned):
            return _recomputed(layer, *inputs)

    def _one_for_all(self, layer: Callable[..., Any]) -> Callable[..., Any]:
        """A layer by its compiled code, which all layers of its class share; lengths are symbols in it."""
        assert isinstance(layer, partial), "transformers hands its layers over in another way"
        plain = layer.func
        if plain not in self._compiled:
            self._compiled[plain] = torch.compile(plain, dynamic=True)
        return partial(self._compiled[plain], *layer.args, **layer.keywords)


# Non-reentrant: it needs no gradient at the input, so it works over a frozen base as well.
def _recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    return _CHECKPOINT(layer, *inputs, use_reentrant=False)


def graphs() -> int:
    """Graphs that torch has compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
