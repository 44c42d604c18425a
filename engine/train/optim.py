"""Optimizers by name, and the learning rate as a pure function of the step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from engine.checkpoint import Piece, spread
from engine.config import Train
from engine.errors import WishError
from engine.train.muon import MuonAndAdamW
from engine.train.rates import Places, layer_of, rate_factors

Named = tuple[str, torch.nn.Parameter]


def build_optimizer(parameters: Iterable[Named], train: Train, places: Places) -> torch.optim.Optimizer:
    """The Run's optimizer over (name, parameter) pairs; weight decay on matrices only.

    Args:
        parameters: what is trained.
        train: the Run's section.
        places: which layer of the model each is in.

    Raises:
        WishError: a bitsandbytes optimizer without bitsandbytes, or rates by names that no weight has.
    """
    groups = _groups(list(parameters), train, places)
    if train.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=train.learning_rate)
    adam: dict[str, Any] = {
        "lr": train.learning_rate,
        "betas": (train.beta1, train.beta2),
        "eps": train.epsilon,
    }
    if train.optimizer == "muon":
        return MuonAndAdamW(groups, adam)
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
        "lion": optim.Lion,
        "lion_8bit": optim.Lion8bit,
        "paged_lion": optim.PagedLion,
        "paged_lion_8bit": optim.PagedLion8bit,
    }
    if train.optimizer.removeprefix("paged_").startswith("lion"):
        del adam["eps"]  # a sign has no denominator
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
    """Write the rate, by each group's own factor, into a torch-like optimizer."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


@contextlib.contextmanager
def undone(optimizer: Any) -> Iterator[None]:
    """Steps in this block, at rate 0 and on gradients of zero, leave an optimizer that has no state yet as it was."""
    assert not any(optimizer.state.values()), "trained state would be taken away"
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        _forget(optimizer)


def _forget(optimizer: Any) -> None:
    states = list(optimizer.state.values())
    paged = any(getattr(value, "is_paged", False) for state in states for value in state.values())
    if not paged:
        optimizer.state.clear()
        if hasattr(optimizer, "initialized"):
            optimizer.initialized = False  # bitsandbytes' word for a first step that is over
        return
    # bitsandbytes never gives pages back: they are emptied, as they were when they were made, and used again.
    torch.cuda.synchronize()
    for state in states:
        for key, value in state.items():
            if spread(value) and not key.startswith("qmap"):
                value.zero_()
        state["step"] = 0


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


def _groups(parameters: list[Named], train: Train, places: Places) -> list[dict[str, Any]]:
    """Matrices, which decay, then the rest; each apart by its factor on the learning rate, and for Muon by its rule."""
    factors = rate_factors([name for name, _ in parameters], train, places)
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        # ZeRO-3 leaves a flat, empty shard in place; its real shape is beside it.
        matrix = len(getattr(parameter, "ds_shape", parameter.shape)) >= 2
        fresh = {
            "params": [],
            "weight_decay": train.weight_decay if matrix else 0.0,
            "factor": factors[name],
            "lr": train.learning_rate * factors[name],
        }
        muon = train.optimizer == "muon" and parameter.dim() == 2 and layer_of(name) is not None
        if train.optimizer == "muon":
            fresh["muon"] = muon
        groups.setdefault((matrix, factors[name], muon), fresh)["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: not key[0])]
