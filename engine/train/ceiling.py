"""The measured ceiling: how fast this device multiplies matrices when it does nothing else."""

from __future__ import annotations

import time

import torch

SECONDS = 0.25
SMALLEST, LARGEST = 256, 8192


@torch.no_grad()
def matmul_flops(device: torch.device, dtype: torch.dtype, *, seconds: float = SECONDS) -> float | None:
    """Operations a second of square products in this precision; None where there is no memory for them.

    Sizes are doubled while one more product would still be over in time; the best rate of any is taken. All ranks of a
    machine should call this together: they share its memory and, on CPU, its cores.
    """
    ends = time.perf_counter() + seconds
    size, best = SMALLEST, 0.0
    try:
        factors = _factors(size, device, dtype)
        _timed(*factors, 1)
        while (now := time.perf_counter()) < ends:
            # Several at a time: a launch takes as long as a small product does.
            count = max(1, min(64, int((ends - now) / 8 / (2 * size**3 / best)))) if best else 1
            spent = _timed(*factors, count)
            best = max(best, 2 * size**3 * count / spent)
            larger = 2 * (2 * size) ** 3 / best
            if count > 1 and size < LARGEST and larger < (ends - time.perf_counter()) / 4:
                size *= 2
                factors = _factors(size, device, dtype)
                _timed(*factors, 1)
    except torch.OutOfMemoryError:
        return best or None
    return best


def _factors(size: int, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    # Not zeros: GPUs draw less power for them, and so keep a clock that real numbers do not.
    draw = torch.Generator(device).manual_seed(0)
    made = torch.rand(2, size, size, device=device, generator=draw).sub_(0.5).to(dtype)
    return made[0], made[1]


def _timed(left: torch.Tensor, right: torch.Tensor, count: int) -> float:
    _wait(left.device)
    began = time.perf_counter()
    for _ in range(count):
        left @ right
    _wait(left.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
