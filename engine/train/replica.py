"""Whole weights on every rank (`none`, `ddp`): 16-bit compute over fp32 master weights, as ZeRO has it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from engine.checkpoint import Piece, Saved
from engine.config import Run
from engine.dist import World
from engine.train.engine import Update
from engine.train.optim import build_optimizer, flat_state, put_state, set_learning_rate, shaped_state, undone
from engine.train.rates import Places

FIRST_SCALE, STEPS_TO_GROW = 2.0**16, 2000


class Replica:
    """`none` and `ddp`.

    The optimizer works on fp32 copies; the model holds the Run's precision. So a step is rounded once, and the
    same run under ZeRO, which keeps the same copies in shards, follows the same path.
    """

    def __init__(self, model: Any, run: Run, world: World) -> None:
        self.model = model
        self.run = run
        self.world = world
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trainable]
        self.parameters = [parameter for _, parameter in trainable]
        if run.parallel.precision == "fp32":
            self.masters = self.parameters
        else:
            self.masters = [torch.nn.Parameter(p.detach().float().clone()) for p in self.parameters]
        self.optimizer = build_optimizer(
            zip(self.names, self.masters, strict=True), run.train, Places.of(model)
        )
        self.module: torch.nn.Module = model
        if run.parallel.strategy == "ddp":
            devices = [world.device] if world.device.type == "cuda" else None
            self.module = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        self.scale = FIRST_SCALE if run.parallel.precision == "fp16" else 1.0
        self.steps_at_scale = 0

    @property
    def stepped(self) -> torch.optim.Optimizer:
        """See `Engine.stepped`."""
        return self.optimizer

    def in_force(self) -> str:
        """See `Engine.in_force`."""
        if self.run.parallel.strategy == "ddp":
            assert isinstance(self.module, DistributedDataParallel), "ddp was asked for and is not there"
            assert torch.distributed.get_world_size() == self.world.size, "the process group has another size"
            return f"ddp over {self.world.size} ranks ({torch.distributed.get_backend()})"
        assert self.world.size == 1, "several ranks and no strategy between them"
        return "one rank"

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See `Engine.backward`."""
        (loss * self.scale).backward()

    def accumulate(self, *, last: bool) -> Any:
        """See `Engine.accumulate`. Before the last micro-batch DDP keeps its gradients to itself."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        return contextlib.nullcontext()

    def step(self, rate: float) -> Update:
        """See `Engine.step`."""
        if self.masters is not self.parameters:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float().div_(self.scale)
                parameter.grad = None
        limit = self.run.train.clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, limit))
        scale = self.scale
        skipped = self.run.parallel.precision == "fp16" and not self._scale_held(norm)
        if not skipped and math.isfinite(norm):
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
            self._publish()
        self.optimizer.zero_grad(set_to_none=True)
        # An overflow at the smallest scale is not the scale's: told as what it is, the run stops instead of idling.
        return Update(norm, skipped and scale > 1.0)

    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """See `Engine.weights`."""
        if not (every_rank or self.world.first):
            return {}
        return {name: p.detach().cpu() for name, p in zip(self.names, self.parameters, strict=True)}

    @contextlib.contextmanager
    def whole(self) -> Iterator[Any]:
        """See `Engine.whole`."""
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.train()

    def pieces(self) -> list[Piece]:
        """See `Engine.pieces`. Replicas are equal, so each writes its part of the weights."""
        named = list(zip(self.names, self.masters, strict=True))
        return [
            Piece(name, 0, master.detach().flatten(), flat_state(self.optimizer.state.get(master, {})))
            for name, master in named[self.world.rank :: self.world.size]
        ]

    def restore(self, saved: Saved) -> None:
        """See `Engine.restore`."""
        state: dict[Tensor, dict[str, Any]] = {}
        with torch.no_grad():
            for name, master in zip(self.names, self.masters, strict=True):
                piece = saved.cut(name, 0, master.numel())
                master.copy_(piece.master.view_as(master))
                state[master] = shaped_state(piece, master)
        put_state(self.optimizer, state)
        self.scale = saved.scaling.get("scale", self.scale)
        self.steps_at_scale = saved.scaling.get("steps_at_scale", self.steps_at_scale)
        self._publish()

    @torch.no_grad()
    def blank(self, masks: Mapping[str, Tensor]) -> None:
        """See `Engine.blank`."""
        for name, master in zip(self.names, self.masters, strict=True):
            if name in masks:
                master.view(-1)[masks[name].to(master.device)] = 0
        self._publish()

    @contextlib.contextmanager
    def rehearsing(self, micro_batches: int) -> Iterator[None]:
        """See `Engine.rehearsing`."""
        scaling = (self.scale, self.steps_at_scale)
        with undone(self.optimizer):
            yield
        self.scale, self.steps_at_scale = scaling

    @property
    def scaling(self) -> dict[str, Any]:
        """See `Engine.scaling`."""
        return {"scale": self.scale, "steps_at_scale": self.steps_at_scale}

    @torch.no_grad()
    def _publish(self) -> None:
        if self.masters is not self.parameters:
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                parameter.copy_(master)

    def _scale_held(self, norm: float) -> bool:
        """Dynamic loss scaling (arXiv 1710.03740): halve after an overflow, double after a long quiet time."""
        if norm == norm and norm != float("inf"):
            self.steps_at_scale += 1
            if self.steps_at_scale >= STEPS_TO_GROW:
                self.scale, self.steps_at_scale = self.scale * 2, 0
            return True
        self.scale, self.steps_at_scale = max(1.0, self.scale / 2), 0
        return False
