"""One rank of a case: the real engine, the real step, and the bytes it takes, by MemTracker or by the ledger."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from allocation.case import CHUNK, GATHERED, PREFETCHED, REDUCE, Case
from allocation.ledger import Ledger
from engine import dist
from engine.config import Run
from engine.data import Batch
from engine.heartbeat import Where
from engine.model import (
    Adversary,
    EmbeddingNoise,
    Orthogonality,
    SampleAttention,
    adapt,
    head,
    load_model,
    set_layers,
    spans_of,
)
from engine.track import Perf
from engine.train import take_step
from engine.train.assemble import ENGINES
from engine.train.budget import Budget
from engine.train.objective import Objective, chunked_next_token_loss, next_token_loss
from engine.train.spikes import Spikes

STEPS = 3


def measure(case: Case, models: Path, tracker: str, rank: int, port: int) -> int:
    """Peak bytes of three steps on this rank; the first makes the optimizer's state. Setting up is left out.

    Args:
        case: what to run.
        models: folder of the families' model folders.
        tracker: `ledger` or `memtracker`.
        rank: this rank.
        port: where the ranks meet.
    """
    if case.ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"WORLD_SIZE": str(case.ranks), "LOCAL_WORLD_SIZE": str(case.ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    _small_buckets()
    run = case.run(models)
    world = dist.start(run)
    ledger = Ledger()
    with ledger if tracker == "ledger" else contextlib.nullcontext():
        base, attention = load_model(run, world.device), SampleAttention(run, world)
        attention.serve(base)
        model = adapt(base, run)
        set_layers(model, run.model)
        head.ELEMENTS["cpu"] = CHUNK
        asked = head.loss_head(model) if case.chunked else None
        engine = ENGINES[case.strategy](model, run, world)
        engine.module.train()
        job = _job(run, world, engine, chunked_next_token_loss(asked) if asked else next_token_loss)
        job.attention = attention
        if tracker == "memtracker":
            return _by_memtracker(job)
        take_step(job, log=True, asked_to_stop=False)
        ledger.restart()
        for _ in range(STEPS - 1):
            take_step(job, log=True, asked_to_stop=False)
        return ledger.peak


class _Tracker(MemTracker):
    """MemTracker that takes frozen weights as well: it would hook a gradient on each, which only tells kinds apart."""

    def _track_module_params_and_buffers(
        self, module: torch.nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)


def _by_memtracker(job: Any) -> int:
    """Peak of the second step and those after it; MemTracker wants to be told that a new forward begins."""
    take_step(job, log=True, asked_to_stop=False)
    tracker = _Tracker()
    masters = getattr(job.engine, "masters", [])
    tracker.track_external(job.engine.module, job.engine.optimizer, *masters)

    plain = job.objective

    def objective(*args: Any) -> torch.Tensor:
        tracker.reset_mod_stats()
        loss: torch.Tensor = plain(*args)
        return loss

    job.objective = objective
    with tracker:
        for _ in range(STEPS - 1):
            take_step(job, log=True, asked_to_stop=False)
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def _job(run: Run, world: dist.World, engine: Any, objective: Objective) -> Any:
    """As much of a job as a step looks at; every token is trained, each row holds two samples."""
    assert run.data is not None
    rows, length = run.train.micro_batch, run.data.max_length
    half = length // 2
    positions = torch.cat([torch.arange(half), torch.arange(length - half)]).repeat(rows, 1)

    def micro_batches(step: int) -> list[Batch]:
        made = []
        sharing = run.parallel.sequence
        group, place = divmod(world.rank, sharing)
        for number in range(run.train.global_batch * sharing // (rows * world.size)):
            generator = torch.Generator().manual_seed(1000 * step + 10 * number + group)
            ids = torch.randint(1024, (rows, length), generator=generator)
            whole = Batch(ids, ids.clone(), positions, (), rows * length, samples=spans_of(positions))
            made.append(whole.part(place, sharing))
        return made

    return SimpleNamespace(
        run=run,
        world=world,
        engine=engine,
        objective=objective,
        where=Where(),
        noise=EmbeddingNoise(None, alpha=0.0, seed=0),
        adversary=Adversary(None, epsilon=0.0),
        orthogonality=Orthogonality(engine.model, run.adapter),
        budget=Budget(engine, run.adapter, world, steps=STEPS),
        saves=SimpleNamespace(state=lambda: (0, 0, 0)),
        perf=Perf(Where()),
        spikes=Spikes(Path(os.devnull)),
        loader=SimpleNamespace(micro_batches=micro_batches),
        progress=SimpleNamespace(step=0),
        steps=STEPS,
    )


def _small_buckets() -> None:
    """DeepSpeed's buckets in proportion to the model."""
    whole = dist.deepspeed_settings

    def small(run: Run, world_size: int, *, cpu: bool | None = None) -> dict[str, Any]:
        settings = whole(run, world_size, cpu=cpu)
        zero = settings["zero_optimization"]
        zero |= {"reduce_bucket_size": REDUCE, "allgather_bucket_size": 2 * REDUCE}
        if run.parallel.strategy == "zero3":
            zero |= {"stage3_max_live_parameters": GATHERED, "stage3_prefetch_bucket_size": PREFETCHED}
            zero |= {"stage3_max_reuse_distance": GATHERED}
        return settings

    dist.deepspeed_settings = small
