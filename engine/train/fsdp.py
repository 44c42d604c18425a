"""FSDP2: torch itself shards weights, gradients and optimizer state; fp32 shards, the Run's precision in compute."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from engine.checkpoint import Piece, Saved, spread
from engine.config import Run
from engine.dist import World
from engine.model import DTYPES
from engine.train.engine import Update, whole_copy
from engine.train.optim import build_optimizer, flat_state, put_state, set_learning_rate, shaped_state, undone
from engine.train.rates import Places


class Fsdp:
    """`fsdp2`: each decoder layer is one unit, gathered for its forward and backward and then dropped again."""

    def __init__(self, model: Any, run: Run, world: World) -> None:
        self.model = model
        # Buffers keep the precision of compute: no policy would cast them back (VeRA's shared matrices are some).
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
        self.run = run
        self.world = world
        self.dtype = DTYPES[run.parallel.precision]
        policy = MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in _layers(model):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        self.module: Any = fully_shard(model, mesh=mesh, mp_policy=policy)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = build_optimizer(named, run.train, Places.of(model))

    @property
    def stepped(self) -> torch.optim.Optimizer:
        """See `Engine.stepped`."""
        return self.optimizer

    def in_force(self) -> str:
        """See `Engine.in_force`."""
        assert isinstance(self.module, FSDPModule), "fsdp2 was asked for and is not there"
        whole = [name for name, p in self.model.named_parameters() if not isinstance(p, DTensor)]
        assert not whole, f"not sharded: {whole[:3]}"
        held = sum(p.to_local().numel() for p in self.model.parameters())
        total = sum(p.numel() for p in self.model.parameters())
        assert held <= total / self.world.size * 1.1 + 1024, f"{held} of {total} elements are held here"
        backend = torch.distributed.get_backend()
        return f"FSDP2 over {self.world.size} ranks ({backend}), {held / total:.0%} of weights here"

    def accumulate(self, *, last: bool) -> Any:
        """See `Engine.accumulate`. Gradients are reduced once, after the last micro-batch."""
        self.module.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See `Engine.backward`."""
        loss.backward()

    def step(self, rate: float) -> Update:
        """See `Engine.step`."""
        limit = self.run.train.clip_norm or float("inf")
        clipped = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        norm = float(clipped.full_tensor() if isinstance(clipped, DTensor) else clipped)
        if math.isfinite(norm):
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(norm)

    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """See `Engine.weights`. One parameter is whole at a time, so the peak is the result plus one tensor."""
        self._reshard()
        found = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                whole = parameter.detach().full_tensor()
                if every_rank or self.world.first:
                    found[name] = whole.to("cpu", self.dtype)
        return found

    @contextlib.contextmanager
    def whole(self) -> Iterator[Any]:
        """See `Engine.whole`."""
        yield whole_copy(self, self.run, self.world)

    def pieces(self) -> list[Piece]:
        """See `Engine.pieces`."""
        found = []
        for name, parameter in zip(self.names, self.parameters, strict=True):
            start, local = _piece(parameter)
            if local.numel():
                state = flat_state(self.optimizer.state.get(parameter, {}))
                found.append(Piece(name, start, local.detach().flatten(), state))
        return found

    def restore(self, saved: Saved) -> None:
        """See `Engine.restore`."""
        self._reshard()
        state: dict[Tensor, dict[str, Any]] = {}
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                start, local = _piece(parameter)
                piece = saved.cut(name, start, local.numel())
                local.copy_(piece.master.view_as(local))
                state[parameter] = {
                    key: _as_shard(value, parameter) if spread(value) else value
                    for key, value in shaped_state(piece, local).items()
                }
        put_state(self.optimizer, state)

    @torch.no_grad()
    def blank(self, masks: Mapping[str, Tensor]) -> None:
        """See `Engine.blank`."""
        self._reshard()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if name in masks:
                start, local = _piece(parameter)
                mask = masks[name][start : start + local.numel()].to(local.device)
                local.detach().view(-1)[mask] = 0

    def rehearsing(self, micro_batches: int) -> Any:
        """See `Engine.rehearsing`."""
        return undone(self.optimizer)

    @property
    def scaling(self) -> dict[str, Any]:
        """See `Engine.scaling`. There is no fp16 here."""
        return {}

    def _reshard(self) -> None:
        """Drop what a forward without a backward (a probe, a validation) left gathered: it would hide the shards."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _piece(parameter: Any) -> tuple[int, Tensor]:
    """Where this rank's rows of a weight begin in it, flattened, and the rows."""
    _, offsets = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return offsets[0] * (parameter.numel() // max(1, parameter.shape[0])), parameter.to_local()


def _as_shard(local: Tensor, like: Any) -> Tensor:
    return DTensor.from_local(
        local.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def _layers(model: Any) -> list[torch.nn.Module]:
    """The decoder layers, by the class names the model says must stay in one piece."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set(inner._no_split_modules or ())
    return [module for module in inner.modules() if type(module).__name__ in kinds]
