"""What a process and a model are, in plain data: states of generators, names, shapes, a fingerprint."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import numpy
import torch
from torch import nn


def capture_rng() -> dict[str, Any]:
    """States of this process's generators (python, numpy, torch, its CUDA device) as JSON data, no pickle."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": _hex(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = _hex(torch.cuda.get_rng_state())
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put the generators back to what `capture_rng` saw; CUDA's where both then and now have it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


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


def _hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
