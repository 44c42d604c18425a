"""What a rank holds when 1, 2 or 4 of them share each row, for rows of 1,024 to 8,192 tokens.

Run: python benchmarks/sequence.py [--write]. Real ranks over gloo take real optimizer steps on a small Llama. Prints
the table; --write also puts it in docs/results/sequence.md. Exits with 1 where losses differ or the plan is off by more
than 10 %.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from allocation.ledger import Ledger
from executors.machine import ROOT, command, facts, prose
from transformers import LlamaConfig, LlamaForCausalLM

from engine import dist
from engine.config import Run
from engine.data import Batch
from engine.heartbeat import Where
from engine.model import (
    Adversary,
    EmbeddingNoise,
    Orthogonality,
    SampleAttention,
    head,
    load_model,
    set_layers,
    spans_of,
)
from engine.track import Perf
from engine.train import take_step
from engine.train.assemble import ENGINES
from engine.train.budget import Budget
from engine.train.objective import chunked_next_token_loss
from engine.train.spikes import Spikes
from launch.architecture import architecture
from launch.memory import estimate
from launch.states import job as planned

LENGTHS, SIZES, TIMED = (1024, 2048, 4096, 8192), (1, 2, 4), 3
SAME, PLANNED = 1e-5, 0.10
"""Largest relative difference of a loss, and of the plan from what was measured."""


@dataclass(frozen=True, slots=True)
class Case:
    """Ranks that share every row, and how long rows are."""

    sequence: int
    length: int
    recomputed: bool = False

    def run(self, model: Path) -> Run:
        """One row a step, in fp32, so that a difference is no rounding of 16 bits."""
        return Run.model_validate(
            {
                "output": "runs/sequence",
                "model": {"path": str(model), "activation_checkpointing": self.recomputed},
                "data": {"train": [{"path": "rows.jsonl"}], "max_length": self.length},
                "train": {"steps": TIMED + 2, "global_batch": 1, "learning_rate": 1e-3},
                "parallel": {
                    "strategy": "none" if self.sequence == 1 else "ddp",
                    "processes": self.sequence,
                    "sequence": self.sequence,
                    "device": "cpu",
                    "precision": "fp32",
                    "threads": 1,
                },
            }
        )


@dataclass(frozen=True, slots=True)
class Result:
    """Of rank 0: bytes at its peak and between steps, CPU seconds of a step (median), and every step's loss."""

    peak: int
    resting: int
    seconds: float
    losses: tuple[float, ...]


def cases() -> Iterator[Case]:
    """Every length with every size, and the longest with recomputed activations."""
    for length in LENGTHS:
        for size in SIZES:
            yield Case(size, length)
    for size in SIZES:
        yield Case(size, LENGTHS[-1], recomputed=True)


def rows(case: Case, place: int, vocabulary: int) -> Any:
    """A loader of one row a step: two samples, the second of which begins on no border between ranks."""
    first = case.length * 5 // 8 + 3
    positions = torch.cat([torch.arange(first), torch.arange(case.length - first)])[None]

    def micro_batches(step: int) -> list[Batch]:
        ids = torch.randint(vocabulary, (1, case.length), generator=torch.Generator().manual_seed(step))
        labels = ids.clone()
        labels[:, first] = -100
        return [
            Batch(ids, labels, positions, (), case.length, samples=spans_of(positions)).part(
                place, case.sequence
            )
        ]

    return SimpleNamespace(micro_batches=micro_batches)


def measure(case: Case, model: Path, rank: int, port: int, answers: Any) -> None:
    """Take the steps; rank 0 answers."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"WORLD_SIZE": str(case.sequence), "LOCAL_WORLD_SIZE": str(case.sequence)}
    os.environ |= {"MASTER_PORT": str(port)}
    run = case.run(model)
    world = dist.start(run)
    ledger = Ledger()
    with ledger:
        base, attention = load_model(run, world.device), SampleAttention(run, world)
        attention.serve(base)
        set_layers(base, run.model)
        asked = head.loss_head(base)
        assert asked is not None
        engine = ENGINES[run.parallel.strategy](base, run, world)
        engine.module.train()
        job: Any = SimpleNamespace(
            run=run,
            world=world,
            engine=engine,
            objective=chunked_next_token_loss(asked),
            attention=attention,
            where=Where(),
            noise=EmbeddingNoise(None, alpha=0.0, seed=0),
            adversary=Adversary(None, epsilon=0.0),
            orthogonality=Orthogonality(base, run.adapter),
            budget=Budget(engine, run.adapter, world, steps=TIMED + 2),
            saves=SimpleNamespace(state=lambda: (0, 0, 0)),
            perf=Perf(Where()),
            spikes=Spikes(Path(os.devnull)),
            loader=rows(case, rank, base.config.vocab_size),
            progress=SimpleNamespace(step=0),
            steps=TIMED + 2,
        )
        losses = [take_step(job, log=True, asked_to_stop=False).loss]
        ledger.restart()
        resting = ledger.now
        job.progress.step = 1
        losses.append(take_step(job, log=True, asked_to_stop=False).loss)
        peak = ledger.peak
    seconds = []
    for step in range(2, TIMED + 2):
        job.progress.step = step
        began = time.process_time()
        losses.append(take_step(job, log=True, asked_to_stop=False).loss)
        seconds.append(time.process_time() - began)
    if rank == 0:
        answers.put(Result(peak, resting, statistics.median(seconds), tuple(float(x or 0) for x in losses)))
    world.barrier()
    world.close()


def result(case: Case, model: Path) -> Result:
    """Start the ranks of a case, and wait for rank 0's answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [
        context.Process(target=measure, args=(case, model, rank, port, answers))
        for rank in range(case.sequence)
    ]
    for one in ranks:
        one.start()
    found: Result = answers.get(timeout=600)
    for one in ranks:
        one.join(60)
        if one.exitcode != 0:
            sys.exit(f"a rank of {case} ended with {one.exitcode}")
    return found


def forecast(case: Case, model: Path) -> int:
    """What the plan says of the case, setting up left out."""
    run = case.run(model)
    memory = estimate(planned(run, architecture(run), cpu=True))
    return max(size for phase, size in memory.phases if phase != "start")


PAGE = """# Rows that ranks share

{head}

A Llama of 4 layers, 256 wide, 8 heads, 4 key heads, {parameters:.1f} M weights, in fp32, one row a step with two
samples in it, every token trained, loss in chunks. One rank holds whole rows (`none`); 2 and 4 ranks share each row
(`ddp`, `parallel.sequence` 2 and 4). Tensors are counted on rank 0 by benchmarks/allocation/ledger.py in the second
step; resting are those between steps: weights, optimizer state, and DDP's buckets where there are several ranks. So
what a step takes beside them is what sharing divides. Losses of {steps} steps differ from those of one rank by
{apart:.1e} at most (relative; aim: {same:.0e}).

One rank takes a sample at a time as well, without a mask of tokens x tokens, so what is above 1/2 and 1/4 is what the
exchange and the sharing cost.

CPU seconds are those of rank 0's process for a step, the exchange over gloo included (median of {timed}); the ranks of
one machine share its {cores} cores, so nothing here is a speed of several machines.

All sizes are in MiB.

| tokens in a row | activations | ranks a row | peak | resting | the step's own | of one rank's | planned peak | CPU s |
|---|---|---|---|---|---|---|---|---|
{rows}

Not measured here: CUDA, NCCL, and the links between GPUs.
"""


def main() -> None:
    """Print the page, write it where asked, and fail where a bar is missed."""
    parser = argparse.ArgumentParser(description="Memory of rows that ranks share.")
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    lines, faults, most = [], [], 0.0
    alone: dict[tuple[int, bool], Result] = {}
    with tempfile.TemporaryDirectory() as name:
        model = Path(name)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=LENGTHS[-1],
        )
        made = LlamaForCausalLM(config)
        made.save_pretrained(model)
        parameters = made.num_parameters()
        del made  # ranks are forked, and would count it
        for case in cases():
            found, foretold = result(case, model), forecast(case, model)
            one = alone.setdefault((case.length, case.recomputed), found)
            apart = max(abs(a - b) / b for a, b in zip(found.losses, one.losses, strict=True))
            most = max(most, apart)
            own, whole = found.peak - found.resting, one.peak - one.resting
            cells = (
                f"{case.length:,}",
                "recomputed" if case.recomputed else "kept",
                str(case.sequence),
                f"{found.peak / 2**20:.1f}",
                f"{found.resting / 2**20:.1f}",
                f"{own / 2**20:.1f}",
                f"{own / whole:.0%}",
                f"{foretold / 2**20:.1f} ({foretold / found.peak - 1:+.1%})",
                f"{found.seconds:.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
            if apart > SAME:
                faults.append(f"{case}: losses differ by {apart:.1e}")
            if abs(foretold / found.peak - 1) > PLANNED:
                faults.append(f"{case}: the plan is off by {foretold / found.peak - 1:+.1%}")
    text = PAGE.format(
        head=prose(
            f"`{command()}`, {facts()}, no GPU; torch {version('torch')}, transformers {version('transformers')}."
        ),
        parameters=parameters / 1e6,
        steps=TIMED + 2,
        apart=most,
        same=SAME,
        timed=TIMED,
        cores=os.cpu_count(),
        rows="\n".join(lines),
    )
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "sequence.md").write_text(text, encoding="utf-8")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
