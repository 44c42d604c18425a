"""What each strategy keeps on a GPU and moves through it: weights, masters, gradients, optimizer state, buckets."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import STAGES, Adapter, Run, deepspeed_settings
from engine.errors import WishError
from launch import activations
from launch.architecture import Architecture
from launch.moments import optimizer_bytes, step_bytes

MASTER = 4
# Elements DeepSpeed's bf16 optimizer copies side by side for one all-reduce (MEMORY_OPT_ALLREDUCE_SIZE in engine.py).
ALL_REDUCE = 500_000_000
KNOWN = ("full", "lora", "qlora")


@dataclass(frozen=True, slots=True)
class Buckets:
    """Elements DeepSpeed collects before it talks, and may hold gathered (`engine.config.deepspeed_settings`).

    `doubled` says whether one bucket is filled while another is sent, as on CUDA.
    """

    reduce: int
    gathered: int
    prefetched: int
    doubled: bool

    @classmethod
    def of(cls, run: Run, ranks: int, *, cpu: bool) -> Buckets:
        """The sizes a Run's DeepSpeed settings say; none for another strategy."""
        if run.parallel.strategy not in STAGES:
            return cls(0, 0, 0, False)
        zero = deepspeed_settings(run, ranks, cpu=cpu)["zero_optimization"]
        return cls(
            reduce=zero["reduce_bucket_size"],
            gathered=zero.get("stage3_max_live_parameters", 0),
            prefetched=zero.get("stage3_prefetch_bucket_size", 0),
            doubled=zero["overlap_comm"],
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Elements of a model under a method, whole (no rank's share yet).

    `largest` is the largest trained tensor, `last` the one whose gradient is converted last.
    """

    total: int
    trained: int
    quantised: int
    layer: int
    layer_trained: int
    largest: int
    last: int

    @property
    def plain(self) -> int:
        """Elements kept in the Run's precision."""
        return self.total - self.quantised


def counts(model: Architecture, adapter: Adapter) -> Counts:
    """How many weights there are, train, and are quantised (linear layers of decoder layers alone).

    Raises:
        WishError: an adapter whose memory was never measured here.
    """
    layers = model.shape.layers
    _demand_known(adapter)
    if adapter.kind == "full":
        inner = max(one.weights for one in model.linears)
        if model.experts:
            inner = 2 * model.experts.count * model.shape.hidden * model.experts.intermediate
        largest = max(inner, model.embedding)
        last = model.head or model.shape.hidden
        return Counts(model.parameters, model.parameters, 0, model.layer, model.layer, largest, last)
    added = model.adapter_layer(adapter)
    largest = max(adapter.rank * max(one.inputs, one.outputs) for one in model.targets(adapter))
    quantised = model.layer_linear if adapter.kind == "qlora" else 0
    total = model.parameters + layers * added
    return Counts(total, layers * added, layers * quantised, model.layer + added, added, largest, largest)


def _demand_known(adapter: Adapter) -> None:
    unknown = [f"adapter.kind {adapter.kind}"] if adapter.kind not in KNOWN else []
    if adapter.kind != "full":
        unknown += [f"adapter.{key}" for key in ("dora", "new_tokens") if getattr(adapter, key)]
    if unknown:
        raise WishError(
            f"the memory of {unknown[0]} is not known here",
            f"plan knows {', '.join(KNOWN)} as they are; `temper train --dry-run` prints the command for any",
        )


def weight_width(run: Run) -> int:
    """Bytes of a weight in the Run's precision."""
    return 4 if run.parallel.precision == "fp32" else 2


@dataclass(frozen=True, slots=True)
class Job:
    """A Run as bytes see it: model, batch, ranks, and the sizes DeepSpeed was given."""

    run: Run
    model: Architecture
    ranks: int
    batch: activations.Batch
    buckets: Buckets
    cpu: bool

    @property
    def accumulates(self) -> bool:
        """Whether a step has more than one micro-batch."""
        return self.micro_batches > 1

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step, each a group of ranks has rows of its own for."""
        groups = self.ranks // self.run.parallel.sequence
        return self.run.train.global_batch // (self.run.train.micro_batch * groups)

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return weight_width(self.run)


def job(run: Run, model: Architecture, *, cpu: bool = False, buckets: Buckets | None = None) -> Job:
    """The job of a Run; every column of a row is taken to be trained, so logits are at their most."""
    assert run.data is not None
    if run.model.head != "language":
        raise WishError(
            f"the memory of a {run.model.head} head is not known here",
            "plan knows language models; `temper train --dry-run` prints the command for any",
        )
    ranks, sharing, width = run.parallel.processes, run.parallel.sequence, weight_width(run)
    length = -(-run.data.max_length // sharing)
    batch = activations.Batch(
        rows=run.train.micro_batch,
        length=length,
        width=width,
        trained=max(1, min(length, run.data.max_length - 1)),
        attention=run.model.attention,
        dropped=width if cpu else 1,
        sharing=sharing,
    )
    return Job(run, model, ranks, batch, buckets or Buckets.of(run, ranks, cpu=cpu), cpu)


@dataclass(frozen=True, slots=True)
class States:
    """Bytes a strategy keeps on the device, and moves through it.

    `gradients_*` are those before the last micro-batch's backward, at its end, in the optimizer's step, and between
    steps; `passing_*` what is needed for a moment beside them; `start` the peak while the strategy is set up.
    """

    weights: int
    masters: int
    optimizer: int
    gradients_before: int
    gradients_after: int
    gradients_step: int
    gradients_kept: int = 0
    passing_forward: int = 0
    passing_loss: int = 0
    passing_backward: int = 0
    passing_end: int = 0
    passing_reduce: int = 0
    passing_step: int = 0
    start: int = 0
    host: int = 0


def quantised_bytes(elements: int, *, double_quant: bool) -> int:
    """A 4-bit base: half a byte an element and a constant for each 64 of them (QLoRA, arXiv 2305.14314, section 3).

    The constant is 4 bytes, or 1 byte and 4 more for each 256 constants with double quantisation.
    """
    blocks = -(-elements // 64)
    constants = blocks + 4 * -(-blocks // 256) if double_quant else 4 * blocks
    return -(-elements // 2) + constants


def base_bytes(job: Job, count: Counts) -> int:
    """The whole 4-bit base."""
    return quantised_bytes(count.quantised, double_quant=job.run.adapter.double_quant)


def _replica(job: Job) -> States:
    """`none` and `ddp` (`engine.train.replica`): fp32 masters beside 16-bit weights; DDP's buckets hold gradients."""
    count, width = counts(job.model, job.run.adapter), job.width
    device, host = optimizer_bytes(job.run, count.trained, job.model)
    ddp = job.run.parallel.strategy == "ddp"
    half = width < MASTER
    gradients = width * count.trained
    before = gradients if job.accumulates else 0
    if ddp:
        # Buckets stay; micro-batches that do not talk gather their gradients beside them.
        before += gradients
    return States(
        weights=width * count.plain,
        masters=MASTER * count.trained if half else 0,
        optimizer=device,
        gradients_before=before,
        gradients_after=before if ddp else gradients,
        gradients_step=(MASTER * count.trained if half else gradients) + (gradients if ddp and half else 0),
        passing_backward=width * count.largest if ddp or job.accumulates else 0,
        passing_step=max(step_bytes(job.run, job.model), 0 if ddp or not half else width * count.last),
        host=host,
    )


def _zero_1(job: Job) -> States:
    """ZeRO-1 in bf16 (arXiv 1910.02054; deepspeed/runtime/bf16_optimizer.py): fp32 gradients, whole, from the start.

    The 16-bit gradients stay beside them until the step; for the all-reduce the fp32 ones are copied side by side.
    """
    parallel = job.run.parallel
    if parallel.precision != "bf16" or parallel.offload_optimizer:
        return _zero_2(job)
    count = counts(job.model, job.run.adapter)
    shard = -(-count.trained // job.ranks)
    device, host = optimizer_bytes(job.run, shard, job.model)
    whole, half = MASTER * count.trained, job.width * count.trained
    return States(
        weights=job.width * count.plain,
        masters=MASTER * shard,
        optimizer=device,
        gradients_before=whole + (half if job.accumulates else 0),
        gradients_after=whole + half,
        gradients_step=whole + half,
        gradients_kept=whole,
        passing_reduce=MASTER * min(count.trained, ALL_REDUCE),
        host=host,
    )


def _zero_2(job: Job) -> States:
    """ZeRO-2, and ZeRO-1 in fp16 or with offload (arXiv 1910.02054; deepspeed/runtime/zero/stage_1_and_2.py).

    Both: flat 16-bit weights on every rank, fp32 masters and optimizer state in shards. Stage 2 keeps a shard of the
    gradients and sends the rest away a bucket at a time; stage 1 adds them up in fp32, whole. In fp32 the two are
    alike, and a second shard is made for the step.
    """
    count, width = counts(job.model, job.run.adapter), job.width
    shard = -(-count.trained // job.ranks)
    device, host = optimizer_bytes(job.run, shard, job.model)
    buckets = job.buckets.reduce * (2 if job.buckets.doubled else 1)
    sharded, masters = MASTER * shard, MASTER * shard
    sent = min(job.buckets.reduce, count.trained)
    if job.run.parallel.strategy == "zero1" and width < MASTER:
        before = sharded + MASTER * count.trained
        passing, sending = MASTER * buckets, 0
    else:
        before = sharded
        passing, sending = width * buckets, (2 * MASTER - width) * sent
    if job.run.parallel.offload_optimizer:
        # On the host: masters, moments, their gradients, 16-bit weights to send back, and a gradient in passing.
        host += masters + device + sharded + width * shard + width * count.largest
        passing += width * count.largest
        masters, device = 0, 0
    return States(
        weights=width * count.plain,
        masters=masters,
        optimizer=device,
        gradients_before=before if job.accumulates else 0,
        gradients_after=before,
        gradients_step=before + (sharded if width == MASTER else 0),
        passing_backward=passing + sending * _fills_a_bucket(job, count),
        passing_end=passing + sending,
        host=host,
    )


def _fills_a_bucket(job: Job, count: Counts) -> bool:
    """Whether DeepSpeed sends gradients away before backward's end: what fits into one bucket waits until then."""
    return count.trained > job.buckets.reduce


def _zero_3(job: Job) -> States:
    """ZeRO-3 (arXiv 1910.02054; deepspeed/runtime/zero/stage3.py): weights in shards, gathered for use."""
    count, width, ranks = counts(job.model, job.run.adapter), job.width, job.ranks
    parallel = job.run.parallel
    shard = -(-count.trained // ranks)
    device, host = optimizer_bytes(job.run, shard, job.model)
    gradients = MASTER * shard
    masters = MASTER * shard
    gathered = width * min(count.plain, job.buckets.gathered + _kept_experts(job)) + _gathered_base(
        job, count
    )
    bucket = MASTER * job.buckets.reduce
    sent = MASTER * min(job.buckets.reduce, count.trained)
    weights = width * -(-count.plain // ranks)
    step = 2 * gradients
    if parallel.offload_optimizer:
        host += masters + device + 2 * gradients
        masters, device, gradients, step = 0, 0, 0, 0
    if parallel.offload_parameters:
        host += width * shard
        weights -= width * shard
    return States(
        weights=weights,
        masters=masters,
        optimizer=device,
        gradients_before=gradients,
        gradients_after=gradients,
        gradients_step=step,
        gradients_kept=gradients,
        # What is prefetched arrives in one flat buffer, of which each parameter then gets its own copy.
        passing_forward=gathered + bucket + width * min(count.plain, job.buckets.prefetched),
        passing_loss=gathered + bucket,
        passing_backward=gathered + bucket + sent * _fills_a_bucket(job, count),
        passing_end=gathered + bucket + sent,
        passing_step=bucket,
        host=host,
    )


def _kept_experts(job: Job) -> int:
    """Elements of experts that stay gathered until backward, though ZeRO-3 let go of them; 0 without experts.

    DeepSpeed has a linear layer of its own that keeps no weight for backward; the grouped product of experts keeps
    it. With checkpointing that is one layer at a time; with adapters it is their sum (`activations`) that is kept.
    """
    experts = job.model.experts
    if experts is None or (job.run.adapter.kind != "full" and job.model.adapts_experts(job.run.adapter)):
        return 0
    block = 3 * experts.count * job.model.shape.hidden * experts.intermediate
    return block if job.run.model.activation_checkpointing else job.model.shape.layers * block


def _gathered_base(job: Job, count: Counts) -> int:
    return min(count.quantised // 2, 2 * job.buckets.gathered) if count.quantised else 0


def _fsdp2(job: Job) -> States:
    """FSDP2 (arXiv 2304.11277; `engine.train.fsdp`): fp32 shards of all weights, a layer gathered in 16 bits.

    What is in no layer (embedding, head, last norm) stays gathered from forward to backward. Two layers are gathered
    at once, the one at work and the next. Micro-batches that do not talk add whole gradients up in fp32.
    """
    count, width, ranks = counts(job.model, job.run.adapter), job.width, job.ranks
    device, host = optimizer_bytes(job.run, -(-count.trained // ranks), job.model)
    shards = MASTER * -(-count.trained // ranks)
    root = count.total - job.model.shape.layers * count.layer
    root_trained = count.trained - job.model.shape.layers * count.layer_trained
    whole = MASTER * count.trained
    # A layer's gradients are sent in fp32 when its backward is over, and its activations are gone.
    done = activations.layer_saved(job.model, job.batch, job.run.adapter)
    done += activations.layer_passing(job.model, job.batch, job.run.adapter)
    sent = MASTER * count.layer_trained + width * (count.layer_trained + root_trained)
    return States(
        weights=MASTER * -(-count.total // ranks),
        masters=0,
        optimizer=device,
        gradients_before=whole if job.accumulates else 0,
        gradients_after=whole if job.accumulates else shards,
        gradients_step=shards,
        passing_forward=width * root,
        passing_loss=width * root,
        passing_backward=width * (root + 2 * count.layer) + max(0, sent - done),
        start=MASTER * count.total,
        host=host,
    )


STATES = {
    "none": _replica,
    "ddp": _replica,
    "zero1": _zero_1,
    "zero2": _zero_2,
    "zero3": _zero_3,
    "fsdp2": _fsdp2,
}


def base_share(job: Job) -> int:
    """The part of the 4-bit base on one GPU: ZeRO-3 shards it too."""
    count = counts(job.model, job.run.adapter)
    base = base_bytes(job, count)
    return -(-base // job.ranks) if job.run.parallel.strategy == "zero3" else base
