"""FSDP2: torch itself shards weights, gradients and optimizer state; fp32 shards, the Run's precision in compute."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from engine.config import Run
from engine.dist import World
from engine.model import DTYPES
from engine.train.engine import Update, whole_copy
from engine.train.optim import build_optimizer, set_learning_rate

FOLDER = "fsdp"


class Fsdp:
    """`fsdp2`: each decoder layer is one unit, gathered for its forward and backward and then dropped again."""

    def __init__(self, model: Any, run: Run, world: World) -> None:
        self.model = model.float()
        self.run = run
        self.world = world
        self.dtype = DTYPES[run.parallel.precision]
        policy = MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in _layers(model):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        self.module: Any = fully_shard(model, mesh=mesh, mp_policy=policy)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        self.optimizer = build_optimizer(named, run.train)

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
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))

    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """See `Engine.weights`. One parameter is whole at a time, so the peak is the result plus one tensor."""
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

    def save(self, folder: Path) -> None:
        """See `Engine.save`."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=str(folder / FOLDER))

    def load(self, folder: Path) -> None:
        """See `Engine.load`."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=str(folder / FOLDER))
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)


def _layers(model: Any) -> list[torch.nn.Module]:
    """The decoder layers, by the class names the model says must stay in one piece."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set(inner._no_split_modules or ())
    return [module for module in inner.modules() if type(module).__name__ in kinds]
