"""How long and how dear: an estimate of tokens a second from FLOPs and bandwidths, or what a past run measured."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import protocol
from engine.config import Run, load
from engine.errors import WishError
from launch.activations import exchanged, inputs
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
# A past run's speed and memory are those of a planned one where these are alike.
ALIKE = {
    "model": ("path", "attention", "activation_checkpointing", "activation_offload", "compile"),
    "adapter": ("kind",),
    "data": ("max_length",),
    "train": ("micro_batch",),
    "parallel": ("strategy", "precision", "float8", "offload_optimizer", "offload_parameters", "sequence"),
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much will be trained on, at most: packing may need fewer rows. None where only the data's tokens tell."""

    steps: int | None
    rows: int | None
    tokens: int | None
    why: str


def extent(run: Run) -> Extent:
    """Steps, rows and tokens of a Run, as far as they are known before its data is tokenised."""
    assert run.data is not None
    batch, length = run.train.global_batch, run.data.max_length
    if run.train.steps is not None:
        rows = run.train.steps * batch
        why = "train.steps; rows are filled to data.max_length at most"
        return Extent(run.train.steps, rows, rows * length, why)
    lines = [_lines(Path(source.path).expanduser()) for source in run.data.train]
    known = [count for count in lines if count is not None]
    if len(known) < len(lines):
        return Extent(None, None, None, "known at start, when the rows are read and tokenised")
    share = 1 - run.data.validation_fraction - run.data.test_fraction
    weighted = sum(count * source.weight for count, source in zip(known, run.data.train, strict=True))
    rows = math.ceil(weighted * share * run.train.epochs)
    why = (
        "every sample in a row of its own"
        if not run.data.packing
        else "packing puts several samples in a row"
    )
    return Extent(math.ceil(rows / batch), rows, rows * length, f"{why}; known exactly at start")


def _lines(path: Path) -> int | None:
    """Rows of a JSONL file that is here and small enough to count at once; a line without text is none."""
    if path.suffix.lower() != ".jsonl" or not path.is_file() or path.stat().st_size > COUNTED_BYTES:
        return None
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens a second over all ranks, and where the figure comes from."""

    tokens_per_second: float
    source: str
    measured: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What a past run logged: median tokens a second, and its peak memory in MiB on CUDA."""

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
    whole = forward * (2 if run.model.activation_checkpointing else 1) + backward + trained
    return 2 * whole if run.train.adversarial_epsilon else whole


def pace(job: Job, cluster: Cluster) -> Pace | None:
    """Tokens a second of a job on a cluster, from peak FLOPs, link and host bandwidth: within a factor of two.

    None in fp32, whose matrix products run on other units than those the peak and the efficiency are known of.
    """
    run, gpu, ranks = job.run, cluster.gpu, job.ranks
    if run.parallel.precision == "fp32":
        return None
    train, strategy = run.train, run.parallel.strategy
    micro = job.micro_batches
    tokens = train.global_batch * job.batch.length * run.parallel.sequence
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
    # Both copies of a layer's input wait for the device to come to them.
    moved = 2 * inputs(job.model, job.batch) / (gpu.host * 1e9) if run.model.activation_offload else 0.0
    seconds = micro * (compute + (1 - HIDDEN) * talk + _exchange(job, link) + moved) + step
    source = f"{EFFICIENCY[run.adapter.kind]:.0%} of {gpu.tflops:g} TFLOPS, {gpu.link:g} GB/s between GPUs"
    return Pace(tokens / seconds, source, False)


def _exchange(job: Job, link: float) -> float:
    """Seconds of a micro-batch in which ranks that share rows swap heads and tokens: attention waits for it."""
    sharing = job.run.parallel.sequence
    passes = 3 if job.run.model.activation_checkpointing else 2
    size = passes * job.model.shape.layers * exchanged(job.model, job.batch)
    return size * (sharing - 1) / sharing / link


def measured(folder: Path, run: Run) -> Measured:
    """What the training in `folder` logged, which must be like the one that `run` describes.

    Raises:
        WishError: it left no records, they cannot be read, or it was another model, method, strategy or device.
    """
    fix = "name the folder of a training of this model with the same method, ranks, strategy and device"
    for name in (protocol.RUN, protocol.FACTS, protocol.METRICS):
        if not (folder / name).is_file():
            raise WishError(f"{folder} holds no records of a training (no {name})", fix)
    try:
        facts = json.loads((folder / protocol.FACTS).read_text(encoding="utf-8"))
        # What follows the last line's end was torn when the run was stopped.
        lines = (folder / protocol.METRICS).read_text(encoding="utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
        if not all(isinstance(value, dict) for value in (facts, *records)):
            raise ValueError("not every record is a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise WishError(
            f"{folder} has no readable records: {error}", "name a run folder that a training left"
        ) from None
    for key, theirs, ours in _differences(load(folder / protocol.RUN).run, facts, run):
        raise WishError(f"{key} is {theirs!r} in {folder} and {ours!r} here", fix)
    speeds = list(_numbers(records, "tokens_per_second"))
    if not speeds:
        raise WishError(f"{folder} holds no records of a speed (none in {protocol.METRICS})", fix)
    peaks = _numbers(records, "memory_mb") if facts["device"] == "cuda" else iter(())
    # The first steps warm caches and kernels up.
    late = speeds[len(speeds) // 3 :]
    return Measured(statistics.median(late), max(peaks, default=None), str(folder))


def _differences(past: Run, facts: dict[str, Any], run: Run) -> Iterator[tuple[str, Any, Any]]:
    """In what a past run was another: name, its value, and the planned run's."""
    for section, keys in ALIKE.items():
        for key in keys:
            theirs, ours = (getattr(getattr(one, section), key, None) for one in (past, run))
            if theirs != ours:
                yield f"{section}.{key}", theirs, ours
    # What the ranks found, whatever the run file left to them.
    for name, ours in (
        ("world_size", run.parallel.processes),
        ("device", "cpu" if run.parallel.device == "cpu" else "cuda"),
    ):
        if facts.get(name) != ours:
            yield name, facts.get(name), ours


def _numbers(records: list[dict[str, Any]], name: str) -> Iterator[float]:
    values = (record.get(name) for record in records)
    return (value for value in values if isinstance(value, int | float) and value > 0)
