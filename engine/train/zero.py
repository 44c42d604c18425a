"""ZeRO 1 to 3 through Accelerate and DeepSpeed: sharded optimizer, gradients, weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config import STAGES, Run
from engine.dist import World
from engine.train.engine import Update, whole_copy
from engine.train.optim import build_optimizer, set_learning_rate

TAG = "zero"


class Zero:
    """`zero1`, `zero2` and `zero3`, with or without offload."""

    def __init__(self, model: Any, run: Run, world: World) -> None:
        self.model = model
        self.run = run
        self.world = world
        self.stage = STAGES[run.parallel.strategy]
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trainable]
        optimizer = build_optimizer(trainable, run.train)
        self.module, _ = world.accelerator.prepare(model, optimizer)
        self.deepspeed = self.module

    def in_force(self) -> str:
        """See `Engine.in_force`."""
        engine = self.deepspeed
        assert type(engine).__name__ == "DeepSpeedEngine", (
            f"DeepSpeed was asked for, {type(engine).__name__} is there"
        )
        assert engine.zero_optimization_stage() == self.stage, (
            f"ZeRO stage {engine.zero_optimization_stage()} is in force"
        )
        assert engine.dp_world_size == self.world.size, f"DeepSpeed sees {engine.dp_world_size} ranks"
        parts = (
            engine.gradient_accumulation_steps() * engine.train_micro_batch_size_per_gpu() * self.world.size
        )
        assert parts == self.run.train.global_batch, f"DeepSpeed would step on {parts} rows"
        if self.stage == 3:
            whole = [name for name, p in self.model.named_parameters() if not hasattr(p, "ds_tensor")]
            assert not whole, f"not sharded: {whole[:3]}"
            held = sum(p.ds_tensor.numel() for p in self.model.parameters())
            total = sum(p.ds_numel for p in self.model.parameters())
        else:
            # The shard of fp32 master weights this rank steps.
            held = sum(
                p.numel() for group in engine.optimizer.optimizer.param_groups for p in group["params"]
            )
            total = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        assert held <= total / self.world.size * 1.1 + 1024 * self.world.size, (
            f"{held} of {total} elements are held here"
        )
        offload = (
            " with offload"
            if self.run.parallel.offload_optimizer or self.run.parallel.offload_parameters
            else ""
        )
        what = "weights" if self.stage == 3 else "optimizer state"
        backend = torch.distributed.get_backend()
        return f"ZeRO-{self.stage}{offload} over {self.world.size} ranks ({backend}), {held / total:.0%} of {what} here"

    def accumulate(self, *, last: bool) -> Any:
        """Context of one micro-batch: DeepSpeed counts its own micro-batches."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See `Engine.backward`."""
        self.deepspeed.backward(loss, scale_wrt_gas=False)
        if not last:
            self.deepspeed.step()  # counts the micro-batch; weights move at the accumulation border only

    def step(self, rate: float) -> Update:
        """See `Engine.step`."""
        set_learning_rate(self.deepspeed.optimizer, rate)
        before = self.deepspeed.skipped_steps
        self.deepspeed.step()
        norm = self.deepspeed.get_global_grad_norm()
        skipped = self.deepspeed.skipped_steps > before
        if skipped and self.run.parallel.precision != "fp16":
            # DeepSpeed drops steps whose gradients are not finite in every precision. Only under fp16 is that a
            # matter of scale; elsewhere the run would go on without learning, and its norm is an older step's.
            return Update(float("inf"))
        return Update(float("nan") if norm is None else float(norm), skipped)

    @torch.no_grad()
    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """See `Engine.weights`. One parameter is whole at a time, so the peak is the result plus one tensor."""
        import deepspeed

        found = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if every_rank or self.world.first:
                    found[name] = parameter.detach().cpu().clone()
        return found

    @contextlib.contextmanager
    def whole(self) -> Iterator[Any]:
        """See `Engine.whole`. Only stage 3 shards the weights themselves."""
        if self.stage < 3:
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train()
            return
        yield whole_copy(self, self.run, self.world)

    def save(self, folder: Path) -> None:
        """See `Engine.save`."""
        frozen = self.run.adapter.kind != "full"
        self.deepspeed.save_checkpoint(
            str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=frozen
        )

    def load(self, folder: Path) -> None:
        """See `Engine.load`."""
        strict = self.run.adapter.kind == "full"
        path, _ = self.deepspeed.load_checkpoint(str(folder), tag=TAG, load_module_strict=strict)
        assert path is not None, f"DeepSpeed found no state in {folder}"
