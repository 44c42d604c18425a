"""ZeRO 1 to 3 through Accelerate and DeepSpeed: sharded optimizer, gradients, weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import Piece, Saved, divisible, indivisible, spread
from engine.config import STAGES, Run
from engine.dist import World
from engine.train.engine import Update, whole_copy
from engine.train.optim import build_optimizer, flat_state, set_learning_rate, undone
from engine.train.rates import Places

COUNTS = ("micro_steps", "global_steps", "global_samples", "skipped_steps")


@dataclass(frozen=True, slots=True)
class Range:
    """Elements of a weight within a flat tensor: from `start` in the weight, from `offset` in the tensor."""

    name: str
    start: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Part:
    """A flat fp32 tensor that one rank's optimizer steps; the rest of it, if any, is padding."""

    name: str
    flat: Tensor
    ranges: list[Range]


class Zero:
    """`zero1`, `zero2` and `zero3`, with or without offload."""

    def __init__(self, model: Any, run: Run, world: World) -> None:
        self.model = model
        self.run = run
        self.world = world
        self.stage = STAGES[run.parallel.strategy]
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trainable]
        optimizer = build_optimizer(trainable, run.train, Places.of(model))
        # DeepSpeed prints its memory here, again and again, whatever its log level.
        with contextlib.redirect_stdout(None):
            self.module, _ = world.accelerator.prepare(model, optimizer)
        self.deepspeed = self.module

    @property
    def stepped(self) -> torch.optim.Optimizer:
        """See `Engine.stepped`."""
        inner: torch.optim.Optimizer = self.deepspeed.optimizer.optimizer
        return inner

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
        # Ranks that share a row are each a rank with a row to DeepSpeed.
        passes = 2 if self.run.train.adversarial_epsilon else 1
        rows = parts // (self.run.parallel.sequence * passes)
        assert rows == self.run.train.global_batch, f"DeepSpeed would step on {rows} rows"
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

    def pieces(self) -> list[Piece]:
        """See `Engine.pieces`."""
        found = []
        for part in self._parts():
            state = self.deepspeed.optimizer.optimizer.state.get(part.flat, {})
            whole = Piece(part.name, 0, part.flat, flat_state(state))
            if not divisible(whole):
                found.append(whole)
                continue
            for at in part.ranges:
                here = slice(at.offset, at.offset + at.length)
                mine = {key: value[here] if spread(value) else value for key, value in whole.state.items()}
                found.append(Piece(at.name, at.start, part.flat[here], mine))
        return found

    @torch.no_grad()
    def restore(self, saved: Saved) -> None:
        """See `Engine.restore`."""
        for part in self._parts():
            state = self._restored(part, saved)
            if state:
                self.deepspeed.optimizer.optimizer.state[part.flat] = state
        self._publish()
        self._rescale(saved.scaling)

    @torch.no_grad()
    def blank(self, masks: Mapping[str, Tensor]) -> None:
        """See `Engine.blank`."""
        for part in self._parts():
            for at in part.ranges:
                if at.name in masks:
                    mask = masks[at.name][at.start : at.start + at.length].to(part.flat.device)
                    part.flat[at.offset : at.offset + at.length][mask] = 0
        self._publish()

    @contextlib.contextmanager
    def rehearsing(self, micro_batches: int) -> Iterator[None]:
        """See `Engine.rehearsing`. DeepSpeed steps when its own count of micro-batches says so."""
        engine, optimizer, scaling = self.deepspeed, self.deepspeed.optimizer, self.scaling
        counts = {name: getattr(engine, name) for name in COUNTS}
        engine.micro_steps = engine.gradient_accumulation_steps() - micro_batches
        with undone(optimizer.optimizer):
            yield
        for name, count in counts.items():
            setattr(engine, name, count)
        self._rescale(scaling)
        if self.stage < 3:
            # Each weight has a view of its part of the state; the next step is to make them anew.
            optimizer._hp_optimizer_states_linked = False
            for parameter in self.model.parameters():
                if getattr(parameter, "_hp_mapping", None) is not None:
                    parameter._hp_mapping.optim_fragment = None

    @property
    def scaling(self) -> dict[str, Any]:
        """See `Engine.scaling`."""
        scaler = getattr(self.deepspeed.optimizer, "loss_scaler", None)
        return {} if scaler is None else {k: v for k, v in vars(scaler).items() if isinstance(v, int | float)}

    def _parts(self) -> Iterator[Part]:
        """The flat fp32 tensors the optimizer steps here, and which elements of which weights they hold."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        optimizer, place = self.deepspeed.optimizer, f"{self.world.rank} of {self.world.size}"
        if self.stage == 3:
            for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
                ranges, offset = [], 0
                for parameter in optimizer.fp16_groups[number]:
                    size = parameter.partition_numel()
                    start = self.world.rank * size
                    length = min(size, parameter.ds_numel - start)  # the last ranks' partitions are padded
                    if length > 0:
                        ranges.append(Range(names[id(parameter)], start, offset, length))
                    offset += size
                yield Part(f"ZeRO-3 partition {number}, {place}", flat, ranges)
            return
        # For ZeRO-1 in bf16 without offload DeepSpeed has an optimizer of its own, with names of its own.
        own = hasattr(optimizer, "fp32_groups_flat_partition")
        flats = optimizer.fp32_groups_flat_partition if own else optimizer.single_partition_of_fp32_groups
        groups = optimizer.bf16_groups if own else optimizer.bit16_groups
        for number, flat in enumerate(flats):
            held = [(p, p._hp_mapping) for p in groups[number] if p._hp_mapping is not None]
            yield Part(
                f"ZeRO partition {number}, {place}",
                flat,
                [
                    Range(
                        names[id(parameter)],
                        mapping.lp_fragment_address.start,
                        mapping.hp_fragment_address.start,
                        mapping.hp_fragment_address.numel,
                    )
                    for parameter, mapping in held
                ],
            )

    def _restored(self, part: Part, saved: Saved) -> dict[str, Any]:
        """Fill a flat tensor with saved values; the optimizer's state for it."""
        flat = part.flat
        if part.name in saved:
            whole = saved.cut(part.name, 0, flat.numel())
            flat.copy_(whole.master)
            return {k: v.to(flat.device, copy=True) if spread(v) else v for k, v in whole.state.items()}
        state: dict[str, Any] = {}
        for at in part.ranges:
            here, piece = slice(at.offset, at.offset + at.length), saved.cut(at.name, at.start, at.length)
            if not divisible(piece):
                raise indivisible()
            flat[here].copy_(piece.master)
            for key, value in piece.state.items():
                if spread(value):
                    state.setdefault(key, torch.zeros_like(flat, dtype=value.dtype))[here].copy_(value)
                else:
                    state[key] = value
        fused = any(group.get("fused") for group in self.deepspeed.optimizer.optimizer.param_groups)
        device = flat.device if fused else torch.device("cpu")
        return {
            k: v.to(device, copy=True) if isinstance(v, Tensor) and not spread(v) else v
            for k, v in state.items()
        }

    def _rescale(self, scaling: dict[str, Any]) -> None:
        scaler = getattr(self.deepspeed.optimizer, "loss_scaler", None)
        for key in scaling.keys() & vars(scaler).keys() if scaler is not None else ():
            setattr(scaler, key, scaling[key])

    def _publish(self) -> None:
        """Bring the weights that compute up to their fp32 masters, on all ranks."""
        optimizer = self.deepspeed.optimizer
        if self.stage < 3:
            optimizer.update_lp_params()
            return
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            optimizer.fp16_partitioned_groups_flat[number].copy_(flat)
            optimizer._unflatten_partitioned_parameters(number)
        # Small weights are kept whole on every rank, and would go on as they were.
        kept = optimizer.persistent_parameters
        if kept:
            kept[0].partition(kept)
            kept[0].all_gather(kept)
