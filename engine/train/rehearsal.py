"""A rehearsal before step 1: the worst case runs once, and leaves nothing but its figures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine import protocol
from engine.checkpoint import WEIGHTS, DiskFull, Store, save
from engine.config import LOGGED, Run
from engine.dist import World
from engine.errors import PreflightError
from engine.track import duration, memory
from engine.train.assemble import Job
from engine.train.gauge import Gauge, ran_out

FOLDER = "rehearsal"
BATCH, OPTIMIZER, EVALUATION, SAVE = "forward and backward", "optimizer step", "evaluation", "save"


@dataclass(frozen=True, slots=True)
class Act:
    """A part of the rehearsal: seconds it took, and this rank's most bytes of memory meanwhile."""

    name: str
    seconds: float
    peak: int


@dataclass(slots=True)
class _Stage:
    """What is rehearsed, and what was found so far."""

    job: Job
    gauge: Gauge
    acts: list[Act] = field(default_factory=list)

    @contextmanager
    def act(self, name: str) -> Iterator[None]:
        """One part; memory that runs out in it is told as what it is."""
        self.job.where.at("rehearse")
        self.gauge.reset()
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            if not ran_out(error):
                raise
            raise too_large(self.job.run, self.job.world, name, self.gauge.capacity()) from error
        self.acts.append(Act(name, time.monotonic() - began, self.gauge.peak()))


def rehearses(run: Run, world: World) -> bool:
    """Whether this start rehearses: on CUDA, where memory runs out without a warning, unless the Run says otherwise."""
    wish = run.train.rehearse
    return wish == "always" or (wish == "auto" and world.device.type == "cuda")


def rehearse(job: Job) -> None:
    """Run a step on the largest micro-batch, in-loop generation and a save, and forget them (a collective).

    Called on a fresh engine, before a checkpoint is put into it. The step has gradients of zero and rate 0, so it
    allocates what any step does and changes nothing; each engine then takes back what else a step moves.

    Raises:
        PreflightError: memory ran out, or the disk has no room for the checkpoints the run is to keep.
    """
    began = time.monotonic()
    world = job.world
    stage = _Stage(job, Gauge(world.device, int(os.environ.get("LOCAL_WORLD_SIZE", world.size))))
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        size = _play(stage)
    if devices:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    _tell(stage, size, time.monotonic() - began)


def _play(stage: _Stage) -> int:
    """All parts in the order a run comes to them; the bytes a checkpoint takes."""
    job, engine = stage.job, stage.job.engine
    run = job.run
    batch = job.loader.largest()
    # Gradients are held between micro-batches, so the second of them has the most beside it.
    rows = run.train.micro_batch * job.world.size // run.parallel.sequence
    count = 2 if run.train.global_batch > rows else 1
    with engine.rehearsing(count):
        with stage.act(BATCH):
            for last in (False, True)[-count:]:
                with engine.accumulate(last=last), job.attention.spread(batch.samples):
                    loss = job.objective(engine.module, batch, job.world.device)
                    engine.backward(loss * 0.0, last=last)
        del loss
        with stage.act(OPTIMIZER):
            engine.step(0.0)
        if job.evaluate is not None and run.train.evaluate_every:
            with stage.act(EVALUATION), engine.whole() as model:
                job.evaluate.rehearse(model, job.tokenizer)
            engine.module.train()
        with stage.act(SAVE):
            return _save(job)


def _save(job: Job) -> int:
    """Write a checkpoint, check it as any, measure and remove it; then ask whether the disk has room for all."""
    folder = job.run.folder / FOLDER
    shelf = Store(folder)
    if job.world.first:
        shutil.rmtree(folder, ignore_errors=True)
    job.world.barrier()
    problem: PreflightError | None = None
    size = 0
    try:
        path = save(
            shelf,
            job.progress,
            engine=job.engine,
            tokenizer=job.tokenizer,
            run=job.run,
            world=job.world,
            files=job.files,
            metrics={},
            copied=job.run.checkpoint.background,
        )
        if job.world.first:
            size, weights = _size(path), _size(path / WEIGHTS)
            shutil.rmtree(folder)
            problem = _room(job, size, weights)
    except DiskFull as error:
        raise PreflightError(error.what, error.fix) from error
    finally:
        if job.world.first:
            shutil.rmtree(folder, ignore_errors=True)
    problem, size = job.world.share((problem, size))
    if problem is not None:
        raise problem
    return size


def _room(job: Job, checkpoint: int, weights: int) -> PreflightError | None:
    """Whether the disk holds the most the run will have on it at once; what to say if not."""
    run, options = job.run, job.run.checkpoint
    saves = job.steps // options.every if options.every else 0
    saves += options.at_end and not (options.every and job.steps % options.every == 0)
    kept = options.keep_last + (options.keep_best if _ranked(job) else 0)
    # One more than is kept exists while the newest is written.
    count = max(1, min(kept + 1, saves))
    exported = 0 if options.export == "none" else weights
    there = _size(run.folder / protocol.CHECKPOINTS)
    needed = max(0, count * checkpoint - there) + exported
    free = shutil.disk_usage(run.folder).free
    if needed <= free:
        return None
    return PreflightError(
        f"the run keeps up to {count} checkpoints of {memory(checkpoint)} in {run.folder}, which needs "
        f"{memory(needed)} more with the exported weights, and {memory(free)} are free",
        "free space there, set `output` to a larger disk, or lower checkpoint.keep_last or keep_best",
    )


def _ranked(job: Job) -> bool:
    """Whether the watched metric will be measured, so that best checkpoints are kept beside the last."""
    metric = job.run.checkpoint.metric
    if metric.startswith("validation_"):
        return bool(job.validation)
    return metric in LOGGED or job.evaluate is not None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def too_large(run: Run, world: World, act: str, capacity: int) -> PreflightError:
    """What to say when memory ran out: when, what takes the most of it, and the smallest change planned to fit."""
    plan = protocol.read_prediction(run.folder) if act in (BATCH, OPTIMIZER) else None
    where = f"rank {world.rank} ran out of memory in the rehearsal's {act}"
    if capacity:
        where += f", on a device of {memory(capacity)}"
    if plan is None:
        return PreflightError(
            f"{where}, which is mostly {_blamed(run, act)}",
            _lever(run, act, world.size // run.parallel.sequence),
        )
    term = max(plan.terms, key=lambda name: plan.terms[name])
    what = (
        f"{where}; most of it are {term}: {memory(plan.terms[term])} of the {memory(plan.size)} of tensors "
        f"planned for {plan.phase}"
    )
    # It was planned to need less than there is, and does not fit: all plans are that much too small then.
    short = max(1.0, capacity / plan.total) if plan.total else 1.0
    for change in plan.changes:
        if change.size * short <= capacity:
            return PreflightError(
                what,
                f"the smallest change that is planned to fit is {change.words} ({memory(change.size)} of GPU memory)",
            )
    return PreflightError(what, f"no change of a setting or two is planned to fit: {_rest(run)}")


def _blamed(run: Run, act: str) -> str:
    if act == BATCH:
        rows, length = run.train.micro_batch, run.data.max_length if run.data else 0
        return f"activations and logits of {rows} row{'s' if rows > 1 else ''} x {length} tokens"
    if act == OPTIMIZER:
        return f"the state of {run.train.optimizer}"
    if act == EVALUATION:
        return f"keys and values of {run.evaluate.batch} samples of up to {run.evaluate.max_new_tokens} new tokens"
    return "whole weights, which rank 0 gathers in host memory"


def _half(run: Run, ranks: int) -> int:
    """The largest micro-batch of at most half the rows that still divides a rank's share of the step."""
    share = run.train.global_batch // ranks
    return max(rows for rows in range(1, run.train.micro_batch // 2 + 1) if share % rows == 0)


def _lever(run: Run, act: str, ranks: int) -> str:
    """The mildest setting that makes a part smaller and leaves the result as it is."""
    if act == SAVE:
        return "use a machine with more host memory for rank 0, or train an adapter"
    if act == EVALUATION and run.evaluate.batch > 1:
        return f"start with --set evaluate.batch={run.evaluate.batch // 2}"
    if run.train.micro_batch > 1:
        return f"start with --set train.micro_batch={_half(run, ranks)}, which leaves the result as it is"
    if not run.model.activation_checkpointing:
        return "start with --set model.activation_checkpointing=true, which leaves the result as it is"
    if not run.model.activation_offload:
        return "start with --set model.activation_offload=true, which leaves the result as it is"
    return _rest(run)


def _rest(run: Run) -> str:
    length = f"data.max_length {run.data.max_length}, " if run.data else ""
    return f"use more or larger devices, a smaller model, less than {length}or an adapter (adapter.kind lora or qlora)"


def _tell(stage: _Stage, size: int, seconds: float) -> None:
    job, acts = stage.job, stage.acts
    peaks = [int(peak) for peak in job.world.max([act.peak for act in acts])]
    headroom = -int(job.world.max([-stage.gauge.headroom(max(act.peak for act in acts))])[0])
    highest = max(zip(peaks, acts, strict=True), key=lambda pair: pair[0])
    job.tracker.log(
        {
            "event": "rehearsal",
            "seconds": seconds,
            "headroom_mb": headroom / 2**20,
            "checkpoint_mb": size / 2**20,
            "peak_mb": {act.name: peak / 2**20 for peak, act in zip(peaks, acts, strict=True)},
            "took_seconds": {act.name: act.seconds for act in acts},
        }
    )
    job.tracker.say(
        f"rehearsal: the worst case took {duration(seconds)}, at most {memory(highest[0])} in {highest[1].name} "
        f"with {memory(headroom)} free; a checkpoint takes {memory(size)}"
    )
