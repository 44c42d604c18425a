"""How long and how dear: an estimate of tokens a second from FLOPs and bandwidths, or what a past run measured."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from engine import protocol
from engine.config import STAGES, Run
from engine.errors import WishError
from launch.architecture import Architecture
from launch.hardware import Cluster
from launch.states import Job, counts

# Share of the vendor's dense peak that a run reaches in its matrix products, padding left out. Published for
# transformers models without compiled kernels on A100 and H100: 33 to 47 % (full), LoRA about the same by its own
# FLOPs; 4-bit weights are unpacked before each product. A measured run replaces all of this.
EFFICIENCY = {"full": 0.36, "lora": 0.33, "qlora": 0.22}
# Share of a link's data-sheet bandwidth that collectives of large buffers reach, and how much of them hides.
LINK_EFFICIENCY, HIDDEN = 0.7, 0.5
# A host's memory bandwidth in bytes a second, which a CPU's AdamW is bound by, shared by the ranks.
HOST_BANDWIDTH = 200e9
# Rows of larger files are not counted: an answer at once matters more.
COUNTED_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Extent:
    """How much will be trained on. None where only the data's tokens tell; `at_most` when packing may lower it."""

    steps: int | None
    rows: int | None
    tokens: int | None
    at_most: bool
    why: str


def extent(run: Run) -> Extent:
    """Steps, rows and tokens of a Run, as far as they are known before its data is tokenised."""
    assert run.data is not None
    batch, length = run.train.global_batch, run.data.max_length
    if run.train.steps is not None:
        rows = run.train.steps * batch
        return Extent(
            run.train.steps,
            rows,
            rows * length,
            True,
            "train.steps; rows are filled to data.max_length at most",
        )
    lines = [_lines(Path(source.path)) for source in run.data.train]
    known = [count for count in lines if count is not None]
    if len(known) < len(lines):
        return Extent(None, None, None, False, "known at start, when the rows are read and tokenised")
    share = 1 - run.data.validation_fraction - run.data.test_fraction
    weighted = sum(count * source.weight for count, source in zip(known, run.data.train, strict=True))
    rows = math.ceil(weighted * share * run.train.epochs)
    why = (
        "every sample in a row of its own"
        if not run.data.packing
        else "packing puts several samples in a row"
    )
    return Extent(math.ceil(rows / batch), rows, rows * length, True, f"{why}; known exactly at start")


def _lines(path: Path) -> int | None:
    """Rows of a JSONL file that is here and small enough to count at once."""
    if path.suffix != ".jsonl" or not path.is_file() or path.stat().st_size > COUNTED_BYTES:
        return None
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens a second over all ranks, and where the figure comes from."""

    tokens_per_second: float
    source: str
    measured: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What a past run of the same ranks logged: median tokens a second, and its peak memory in MiB on CUDA."""

    tokens_per_second: float
    memory_mb: float | None
    source: str


def flops_per_token(run: Run, model: Architecture) -> float:
    """FLOPs a token costs: 6 a weight when all train, 4 when the base is frozen (its weights get no gradient), and
    attention's, causal (Korthikanti et al., arXiv 2205.05198, appendix A); a recomputed forward when checkpointing."""
    assert run.data is not None
    size = model.shape
    attention = 2.0 * size.layers * size.heads * size.head_dim * run.data.max_length
    forward = 2.0 * model.active + attention
    frozen = run.adapter.kind != "full"
    backward = (2.0 if frozen else 4.0) * model.active + 2 * attention
    trained = 6.0 * counts(model, run.adapter).trained if frozen else 0.0
    return forward * (2 if run.model.activation_checkpointing else 1) + backward + trained


def pace(job: Job, cluster: Cluster) -> Pace:
    """Tokens a second of a job on a cluster, from peak FLOPs, link and host bandwidth: within a factor of two."""
    run, gpu, ranks = job.run, cluster.gpu, job.ranks
    train, strategy = run.train, run.parallel.strategy
    micro = train.global_batch // (train.micro_batch * ranks)
    tokens = train.global_batch * job.batch.length
    compute = (
        flops_per_token(run, job.model)
        * job.batch.tokens
        / (gpu.tflops * 1e12 * EFFICIENCY[run.adapter.kind])
    )
    count = counts(job.model, run.adapter)
    whole = job.width * count.plain + count.quantised // 2
    link = gpu.link * 1e9 * LINK_EFFICIENCY
    share = (ranks - 1) / ranks
    talk = 0.0
    if strategy in ("zero3", "fsdp2"):
        talk += 2 * whole * share / link
    if strategy in ("zero2", "zero3"):
        talk += 4 * count.trained * share / link
    step = (
        8 * count.trained * share / link
        if strategy not in ("zero2", "zero3")
        else 2 * count.trained * share / link
    )
    if run.parallel.offload_parameters:
        talk += 2 * whole / ranks / (gpu.host * 1e9)
    if run.parallel.offload_optimizer:
        step += 6 * count.trained / ranks / (gpu.host * 1e9) + 28 * count.trained / HOST_BANDWIDTH
    seconds = micro * (compute + (1 - HIDDEN) * talk) + step
    source = f"{EFFICIENCY[run.adapter.kind]:.0%} of {gpu.tflops:g} TFLOPS, {gpu.link:g} GB/s between GPUs"
    return Pace(tokens / seconds, source, False)


def measured(folder: Path, run: Run, ranks: int) -> Measured | None:
    """What the run in `folder` logged, where it had the same ranks, strategy, method and device; None otherwise.

    Raises:
        WishError: its records cannot be read.
    """
    facts_file, metrics = folder / protocol.FACTS, folder / protocol.METRICS
    if not facts_file.is_file() or not metrics.is_file():
        return None
    try:
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        records = [
            json.loads(line)
            for line in metrics.read_text(encoding="utf-8").splitlines()
            if line.endswith("}")
        ]
    except (OSError, ValueError) as error:
        raise WishError(
            f"{folder} has no readable records: {error}", "name a run folder that a training left"
        ) from None
    same = facts.get("world_size") == ranks and facts.get("adapter") == run.adapter.kind
    speeds = [record["tokens_per_second"] for record in records if record.get("tokens_per_second")]
    on_device = (facts.get("device") == "cuda") == (run.parallel.device != "cpu")
    if not same or not speeds or not on_device or not _same_strategy(facts, run):
        return None
    peaks = [record["memory_mb"] for record in records if record.get("memory_mb")]
    peak = max(peaks) if peaks and facts.get("device") == "cuda" else None
    # The first steps warm caches and kernels up.
    late = speeds[len(speeds) // 3 :]
    return Measured(statistics.median(late), peak, str(folder))


def _same_strategy(facts: dict[str, object], run: Run) -> bool:
    said, strategy = str(facts.get("strategy", "")).lower(), run.parallel.strategy
    name = f"zero-{STAGES[strategy]}" if strategy in STAGES else {"none": "one rank"}.get(strategy, strategy)
    return said.startswith(name)
