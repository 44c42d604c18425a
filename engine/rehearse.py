"""A rehearsal of the ranks' meeting: one rank joins the others, sums numbers with them and tells how fast that went."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

import click

MIB = 2**20
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Meeting:
    """What one rank tells of a rehearsal.

    Attributes:
        backend: `nccl` or `gloo`.
        seconds: from the start of the rendezvous to the end of the first all-reduce.
        bytes_per_second: bus bandwidth of a large all-reduce, 2 (n - 1) / n x size / time as in nccl-tests'
            PERFORMANCE.md; 0 for one rank.
        problem: why there was none; empty where all went well.
    """

    backend: str
    seconds: float = 0.0
    bytes_per_second: float = 0.0
    problem: str = ""


@click.command()
@click.option("--address", required=True, help="Where rank 0 listens.")
@click.option("--port", type=int, required=True)
@click.option("--rank", type=int, required=True)
@click.option("--local-rank", type=int, required=True)
@click.option("--ranks", type=int, required=True, help="Ranks in all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), required=True)
@click.option("--seconds", type=float, required=True, help="Limit of each step.")
def rehearse(
    address: str, port: int, rank: int, local_rank: int, ranks: int, device: str, seconds: float
) -> None:
    """Meet, sum, tell one JSON object. `temper check` starts this; people need not."""
    backend = "nccl" if device == "cuda" else "gloo"
    host = f"[{address}]" if ":" in address else address
    try:
        found = _meet(backend, f"tcp://{host}:{port}", rank, local_rank, ranks, seconds)
    except Exception as error:  # torch raises a dozen unrelated types
        lines = str(error).strip().splitlines() or [""]
        found = Meeting(backend, problem=f"{type(error).__name__}: {lines[0]}")
    click.echo(json.dumps(asdict(found)))


def _meet(backend: str, where: str, rank: int, local_rank: int, ranks: int, seconds: float) -> Meeting:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    device = torch.device("cuda", local_rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)

    def finish() -> None:
        if backend == "nccl":
            torch.cuda.synchronize(device)

    began = time.monotonic()
    dist.init_process_group(
        backend, init_method=where, rank=rank, world_size=ranks, timeout=timedelta(seconds=seconds)
    )
    try:
        number = torch.full((256,), float(rank + 1), device=device)
        dist.all_reduce(number)
        finish()
        met = time.monotonic() - began
        wanted = ranks * (ranks + 1) / 2
        if bool((number != wanted).any()):
            return Meeting(
                backend, met, problem=f"the all-reduce gave {number[0].item():g} in place of {wanted:g}"
            )
        if ranks == 1:
            return Meeting(backend, met)
        size = (256 if backend == "nccl" else 8) * MIB
        large = torch.zeros(size // 4, device=device)
        dist.all_reduce(large)
        finish()
        start = time.monotonic()
        for _ in range(ROUNDS):
            dist.all_reduce(large)
        finish()
        taken = (time.monotonic() - start) / ROUNDS
        return Meeting(backend, met, 2 * (ranks - 1) / ranks * size / taken)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    rehearse()
