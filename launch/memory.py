"""Bytes per GPU by term, for every strategy and method: what the training loop allocates, counted from its code."""

from __future__ import annotations

from dataclasses import dataclass

from launch import activations
from launch.states import STATES, Job, States, base_bytes, base_share, counts

GIB = 2**30
PROMPT = 512
# A CUDA context with cuBLAS' workspaces, and NCCL's channels beside it (cuda 12, H100: 0.5 to 0.9 and 0.3 to 0.6 GiB).
CONTEXT = round(0.8 * GIB)
PEERS = round(0.4 * GIB)
# What the caching allocator cannot hand out: blocks are rounded up, and freed ones do not fit the next request.
MARGIN = 0.06


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the peak, in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU at the moment they are most, and on the host of one rank.

    Attributes:
        phase: when: `start`, `forward`, `loss` (its backward), `backward`, `backward's end`, `reduction` of gradients,
            `optimizer`, or in-loop `evaluation`.
        terms: what they are made of at that moment; their sum is `tensors`.
        phases: the highest of each phase, by name.
        context: what the driver and the collectives' library hold beside tensors.
        margin: what the allocator cannot use.
        host: bytes of host memory that offload and paging take, one rank.
    """

    phase: str
    terms: tuple[Term, ...]
    phases: tuple[tuple[str, int], ...]
    context: int
    margin: int
    host: int

    @property
    def tensors(self) -> int:
        """Bytes of tensors at the peak: what `torch.cuda.max_memory_allocated` would say."""
        return sum(term.size for term in self.terms)

    @property
    def total(self) -> int:
        """Bytes a GPU must have."""
        return self.tensors + self.context + self.margin

    @property
    def binding(self) -> Term:
        """The largest term."""
        return max(self.terms, key=lambda term: term.size)


def estimate(job: Job) -> Memory:
    """Bytes per GPU of a job, by term, at its peak."""
    states = STATES[job.run.parallel.strategy](job)
    return _peak(job, states)


def _peak(job: Job, states: States) -> Memory:
    """The highest of: forward's end, the loss' backward, the layers' backward, the optimizer's step, the start."""
    model, batch, adapter = job.model, job.batch, job.run.adapter
    checkpointing = job.run.model.activation_checkpointing
    offload = job.run.model.activation_offload and not job.cpu
    saved = activations.saved(model, batch, adapter, checkpointing=checkpointing, offload=offload)
    chunked = job.run.train.chunked_loss and job.run.parallel.precision != "fp16"
    chunk = activations.CHUNK["cpu" if job.cpu else "cuda"] if chunked else 0
    head = activations.head(model, batch, adapter, chunk=chunk)
    layer = activations.layer_saved(model, batch, adapter)
    passing = activations.layer_passing(model, batch, adapter) + (layer if checkpointing else 0)
    last = passing + (batch.tokens * model.shape.hidden * batch.width if checkpointing else layer)
    before, after = states.gradients_before, states.gradients_after
    moments = {
        "forward": (before, saved, head.forward, states.passing_forward),
        "loss": (before, saved, head.backward, states.passing_loss),
        "backward": (before, saved + passing, 0, states.passing_backward),
        "backward's end": (after, last, 0, max(states.passing_backward, states.passing_end)),
        "reduction": (after, 0, 0, states.passing_reduce),
        "optimizer": (states.gradients_step, 0, 0, states.passing_step),
        "evaluation": (states.gradients_kept, 0, 0, _evaluation(job)),
    }
    constant = states.weights + base_share(job) + states.masters + states.optimizer
    phases = [(name, constant + sum(parts)) for name, parts in moments.items()]
    phases.append(("start", states.start))
    phase, size = max(phases, key=lambda item: item[1])
    context = 0 if job.cpu else CONTEXT + (PEERS if job.ranks > 1 else 0)
    if phase == "start":
        terms: tuple[Term, ...] = (Term("weights", states.start),)
    else:
        gradients, acts, logits, transient = moments[phase]
        terms = (
            Term("weights", states.weights),
            Term("quantised base", base_share(job)),
            Term("master weights", states.masters),
            Term("gradients", gradients),
            Term("optimizer", states.optimizer),
            Term("activations", acts),
            Term("logits", logits),
            Term("transients", transient),
        )
    host = states.host + (activations.inputs(model, batch) if offload else 0)
    return Memory(phase, terms, tuple(phases), context, 0 if job.cpu else round(MARGIN * size), host)


def _evaluation(job: Job) -> int:
    """In-loop evaluation between steps: keys and values of the samples side by side, and under ZeRO-3 and FSDP2 a whole
    copy of the model (`engine.train.engine.whole_copy`). Prompts are taken to have 512 tokens."""
    if not job.run.train.evaluate_every:
        return 0
    size, wish = job.model.shape, job.run.evaluate
    tokens = wish.batch * (wish.max_new_tokens + PROMPT)
    cache = tokens * 2 * size.layers * size.kv_heads * size.head_dim * job.width
    if job.run.parallel.strategy not in ("zero3", "fsdp2"):
        return cache
    count = counts(job.model, job.run.adapter)
    return cache + job.width * count.plain + base_bytes(job, count)
