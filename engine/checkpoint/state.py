"""What a model is, in plain data: names, shapes, a fingerprint."""

from __future__ import annotations

import hashlib
import json

from torch import nn


def shapes(model: nn.Module, *, trainable_only: bool = False) -> dict[str, tuple[int, ...]]:
    """Name to whole shape of each parameter, also where ZeRO-3 keeps only a shard of it here.

    Tied parameters appear once, under the name torch gives them first.
    """
    parameters = _unwrapped(model).named_parameters()
    return {name: _shape(p) for name, p in parameters if p.requires_grad or not trainable_only}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and trainable flags: the same for any strategy and world size."""
    rows = sorted((name, _shape(p), p.requires_grad) for name, p in _unwrapped(model).named_parameters())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _unwrapped(model: nn.Module) -> nn.Module:
    # DDP and DeepSpeed's engine hold the model as `module`; no transformers or PEFT model has one at its top.
    while isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner
    return model


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
