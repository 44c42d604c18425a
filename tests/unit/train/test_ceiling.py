"""The measured ceiling is a rate that real products do not pass by much, and takes no longer than it may."""

from __future__ import annotations

import time

import pytest
import torch

from engine.train import ceiling
from engine.train.ceiling import matmul_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_a_rate_of_this_device_and_soon_known(dtype: torch.dtype) -> None:
    generator = torch.get_rng_state()
    began = time.monotonic()
    found = matmul_flops(CPU, dtype)
    assert time.monotonic() - began < 1.0, "a quarter of a second, and a product that was under way"
    assert found is not None and 1e7 < found < 1e14
    assert torch.equal(torch.get_rng_state(), generator), "the training's own draws are left as they are"


def test_without_memory_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ceiling, "_factors", refuse)
    assert matmul_flops(CPU, torch.float32) is None
