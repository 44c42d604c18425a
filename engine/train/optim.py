"""Optimizers by name, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from engine.checkpoint import Piece, spread
from engine.config import Train
from engine.errors import WishError

Named = tuple[str, torch.nn.Parameter]


def build_optimizer(parameters: Iterable[Named], train: Train) -> torch.optim.Optimizer:
    """The Run's optimizer over (name, parameter) pairs; weight decay on matrices only.

    Raises:
        WishError: a bitsandbytes optimizer without bitsandbytes.
    """
    groups = _decay_groups(list(parameters), train.weight_decay)
    if train.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=train.learning_rate)
    adam: dict[str, Any] = {
        "lr": train.learning_rate,
        "betas": (train.beta1, train.beta2),
        "eps": train.epsilon,
    }
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **adam)
    try:
        from bitsandbytes import optim
    except ImportError:
        raise WishError(
            f"train.optimizer is {train.optimizer} and bitsandbytes is not installed",
            "pip install bitsandbytes",
        ) from None
    kinds: dict[str, Any] = {
        "adamw_8bit": optim.AdamW8bit,
        "paged_adamw": optim.PagedAdamW,
        "paged_adamw_8bit": optim.PagedAdamW8bit,
    }
    return kinds[train.optimizer](groups, **adam)


def learning_rate(train: Train, step: int, steps: int) -> float:
    """Learning rate of a step (0-based) of a run of `steps` steps.

    Warmup is linear and reaches the peak on its last step. `cosine` (arXiv 1608.03983, one cycle) and `linear`
    fall towards `min_learning_rate_ratio` of the peak, which the step after the last would have; `wsd`
    (arXiv 2404.06395) holds the peak and falls likewise, linearly, over the last `decay_fraction` of the steps.
    `range` (arXiv 1506.01186, here by equal factors) rises from `min_learning_rate_ratio` of the peak, at the first
    step, to the peak at the last.
    """
    warmup = train.warmup_steps or round(train.warmup_fraction * steps)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    remaining = max(1, steps - warmup)
    progress = min(1.0, (step - warmup) / remaining)
    floor = train.min_learning_rate_ratio
    if train.schedule == "constant":
        share = 1.0
    elif train.schedule == "range":
        share = floor ** (1 - step / max(1, steps - 1))
    elif train.schedule == "linear":
        share = floor + (1 - floor) * (1 - progress)
    elif train.schedule == "cosine":
        share = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    else:
        decay = max(1, round(train.decay_fraction * steps))
        into = step - (steps - decay)
        share = 1.0 if into <= 0 else floor + (1 - floor) * (1 - min(1.0, into / decay))
    return train.learning_rate * share


def set_learning_rate(optimizer: Any, rate: float) -> None:
    """Write the rate into every group of a torch-like optimizer."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def flat_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's optimizer state, its tensors in one dimension and as held here; numbers stay numbers."""
    return {key: _local(value).flatten() if spread(value) else value for key, value in state.items()}


def shaped_state(piece: Piece, local: torch.Tensor) -> dict[str, Any]:
    """The reverse of `flat_state`: what has an element for each of `local` gets its shape. All tensors are copies, as
    pieces may share a step count, and lie in files that are removed one day."""
    return {
        key: _shaped(value, local) if isinstance(value, torch.Tensor) else value
        for key, value in piece.state.items()
    }


def _shaped(value: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    whole = value.dim() > 0 and value.numel() == local.numel()
    return (value.view_as(local) if whole else value).clone()


def put_state(optimizer: Any, state: Mapping[torch.Tensor, dict[str, Any]]) -> None:
    """Give an optimizer the state of its parameters; its settings, such as the learning rate, stay the Run's.

    It goes through the optimizer's own loading, which knows on which device it wants what.
    """
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    whole = optimizer.state_dict()
    whole["state"] = {place: state[parameter] for place, parameter in enumerate(held) if state[parameter]}
    optimizer.load_state_dict(whole)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _decay_groups(parameters: list[Named], decay: float) -> list[dict[str, Any]]:
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for _, parameter in parameters:
        # ZeRO-3 leaves a flat, empty shard in place; its real shape is beside it.
        (matrices if len(getattr(parameter, "ds_shape", parameter.shape)) >= 2 else rest).append(parameter)
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
