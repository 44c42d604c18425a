"""Put an adapter into its base: one plain model, rounded once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from engine.config import Run
from engine.errors import PreflightError
from engine.model import load_dequantised, with_adapter


def merge(run: Run, adapter: Path, device: torch.device) -> Any:
    """The Run's base with the adapter inside its weights, in the Run's precision.

    Each layer is merged in fp32 and rounded once; PEFT by itself would round the adapter's part first. So host memory
    holds the model and one layer in fp32 (for `qlora` the 4-bit base as well, while its weights are read off).

    Args:
        run: the Run.
        adapter: a folder that its training wrote.
        device: where the weights are put together.

    Raises:
        WishError: the base or the adapter does not load.
        PreflightError: a merged weight would not be finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = with_adapter(load_dequantised(run, device), adapter).to(device)
    for name, module in adapted.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        held = module.get_base_layer()
        dtype = held.weight.dtype
        module.float()
        try:
            module.merge(safe_merge=True)
        except ValueError as error:
            raise PreflightError(
                f"{adapter} does not go into {name}: {error}", "export an earlier checkpoint of the run"
            ) from None
        held.to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        merged = adapted.merge_and_unload()
    # PEFT freezes what it wraps; the weights are the model's own again, and `write_weights` takes those that are.
    return merged.requires_grad_(True)
