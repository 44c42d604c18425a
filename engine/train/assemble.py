"""A job: model, optimizer, loader and objective, each from its room, checked before the first step."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from engine import protocol
from engine.checkpoint import Progress, Saves, Store, fingerprint, smaller_is_better
from engine.config import Run, beyond_context, demand
from engine.data import Batch, Loader, Validation, end_of_turn, load_tokenizer, prepare
from engine.dist import World
from engine.errors import WishError
from engine.heartbeat import Where
from engine.model import (
    Adversary,
    EmbeddingNoise,
    Orthogonality,
    SampleAttention,
    adapt,
    converted,
    demand_exact_packing,
    demand_exact_sharing,
    exact,
    load_model,
    loss_head,
    packing_difference,
    set_layers,
    sharing_difference,
    spans_of,
    use_float8,
)
from engine.track import Meter, Perf, Tracker
from engine.train.budget import Budget
from engine.train.checkout import checkout
from engine.train.engine import Engine
from engine.train.flops import weights
from engine.train.fsdp import Fsdp
from engine.train.objective import Objective, objective_of
from engine.train.replica import Replica
from engine.train.spikes import Spikes
from engine.train.zero import Zero

ENGINES: dict[str, Callable[[Any, Run, World], Engine]] = {
    "none": Replica,
    "ddp": Replica,
    "zero1": Zero,
    "zero2": Zero,
    "zero3": Zero,
    "fsdp2": Fsdp,
}


class Evaluation(Protocol):
    """In-loop evaluation: handed in, since the loop knows no benchmark."""

    def __call__(self, model: Any, tokenizer: Any, step: int) -> dict[str, float]:
        """Metrics such as `pass@1` of a whole model, the same on every rank."""

    def rehearse(self, model: Any, tokenizer: Any) -> None:
        """Take the memory that a call takes at its most, without judging anything."""


@dataclass(slots=True)
class Job:
    """Everything a loop works with. `progress` is the only part that changes from step to step."""

    run: Run
    world: World
    tokenizer: Any
    loader: Loader
    validation: Sequence[Batch] | Validation
    engine: Engine
    objective: Objective
    attention: SampleAttention
    noise: EmbeddingNoise
    adversary: Adversary
    orthogonality: Orthogonality
    budget: Budget
    store: Store
    saves: Saves
    tracker: Tracker
    where: Where
    perf: Perf
    spikes: Spikes
    steps: int
    files: dict[str, str]
    """SHA-256 of the data's files, by name."""
    evaluate: Evaluation | None = None
    progress: Progress = field(default_factory=lambda: Progress(step=0))
    meter: Meter = field(default_factory=Meter)
    dropped: int = 0
    """Steps on end that were dropped, as their gradients were not finite."""
    scores: dict[str, float] = field(default_factory=dict)
    """Newest pass@k of in-loop evaluation, for the eye."""

    @property
    def small_is_good(self) -> bool:
        """Whether the watched metric is a loss."""
        return smaller_is_better(self.run.checkpoint.metric, self.run.checkpoint.mode)


def assemble(run: Run, world: World, where: Where, benchmark_texts: Any = None) -> Job:
    """Build the job of a Run on this rank (a collective).

    Raises:
        WishError: whatever the rooms refuse: model, data, batch arithmetic, packing that would not be exact.
        AssertionError: the strategy in force is not the Run's.
    """
    demand(run, world.size)
    if run.data is None:
        raise WishError("this run has no data section", "add data.train with at least one source")
    torch.use_deterministic_algorithms(run.train.deterministic, warn_only=True)
    where.at("prepare")
    tokenizer = load_tokenizer(run)
    prepared = prepare(
        run,
        tokenizer,
        rank=world.rank,
        world_size=world.size,
        sequence=run.parallel.sequence,
        benchmark_texts=benchmark_texts,
    )
    where.at("model")
    attention = SampleAttention(run, world)
    model = _model(run, world, attention, tokenizer)
    noise = EmbeddingNoise(model, alpha=run.train.neftune_alpha, seed=run.seed)
    adversary = Adversary(model, epsilon=run.train.adversarial_epsilon)
    orthogonality = Orthogonality(model, run.adapter)
    head = loss_head(model) if run.train.chunked_loss and run.model.head == "language" else None
    _demand_fit(model, tokenizer, run)
    _end_turns(model, tokenizer, prepared.facts)
    torch.manual_seed(run.seed)
    engine = ENGINES[run.parallel.strategy](model, run, world)
    strategy = engine.in_force()
    prepared.join(_demand_exact_rows(engine, run, world, attention))
    vocabulary = model.config.get_text_config().vocab_size
    smoothing = run.train.label_smoothing
    objective, how = objective_of(engine.module, head, vocabulary, world, smoothing=smoothing)
    engine.module.train()
    store = _store(run)
    steps = run.train.steps or prepared.train.steps
    files = {name: digest for each in prepared.facts["sources"] for name, digest in each["sha256"].items()}
    job = Job(
        run=run,
        world=world,
        tokenizer=tokenizer,
        loader=prepared.train,
        validation=prepared.validation or [],
        engine=engine,
        objective=objective,
        attention=attention,
        noise=noise,
        adversary=adversary,
        orthogonality=orthogonality,
        budget=Budget(engine, run.adapter, world, steps=steps),
        store=store,
        saves=Saves(store, engine=engine, tokenizer=tokenizer, run=run, world=world, files=files),
        tracker=Tracker(run.folder, run.track, enabled=world.first, config=run.model_dump(mode="json")),
        where=where,
        perf=Perf(where, event=_event(world)),
        spikes=Spikes(run.folder),
        steps=steps,
        files=files,
    )
    if world.first:
        _record(job, strategy, how, prepared.facts)
        print(f"rows: {prepared.origin}", flush=True)
    return job


def _model(run: Run, world: World, attention: SampleAttention, tokenizer: Any) -> Any:
    """The model as it will be trained: loaded, with its attention, adapter and layers as wished."""
    new = tokenizer.convert_tokens_to_ids(list(run.adapter.new_tokens))
    base = load_model(run, world.device)
    attention.serve(base)
    if run.parallel.float8 != "none":
        use_float8(base, run.parallel.float8, world.device)
    model = adapt(base, run, new_tokens=new)
    set_layers(model, run.model)
    return model


def _store(run: Run) -> Store:
    options = run.checkpoint
    folder = run.folder / protocol.CHECKPOINTS
    return Store(folder, options.keep_last, options.keep_best, options.metric, options.mode)


def _record(job: Job, strategy: str, loss: str, data: dict[str, Any]) -> None:
    """facts.json, and the few lines a person reads before the first step."""
    model, run = job.engine.model, job.run
    size = weights(model)
    facts = {
        "strategy": strategy,
        "world_size": job.world.size,
        "sequence": job.attention.size,
        "device": str(job.world.device.type),
        "precision": run.parallel.precision,
        "float8_layers": len(converted(model)),
        "adapter": run.adapter.kind,
        "parameters": size.total,
        "trained_parameters": size.trained,
        "loss": loss,
        "attention": getattr(model.config, "_attn_implementation", None),
        "rows_joined": job.loader.joined,
        "fingerprint": fingerprint(model),
        "steps": job.steps,
        "data": data,
        "versions": _versions(),
        "git": checkout(Path.cwd()),
    }
    protocol.write_json(run.folder / protocol.FACTS, facts)
    if run.parallel.float8 != "none":
        assert facts["float8_layers"], "float8 was asked for and is not there"
        where = "emulated" if job.world.device.type == "cpu" else "by tensor cores"
        print(f"float8: {facts['float8_layers']} linear layers, {run.parallel.float8}, {where}", flush=True)
    shared = f", {job.attention.size} ranks a row" if job.attention.size > 1 else ""
    print(f"strategy in force: {strategy}, {run.parallel.precision}, {run.adapter.kind}{shared}", flush=True)
    print(
        f"parameters: {size.trained:,} trained of {size.total:,}; {job.steps} steps of {run.train.global_batch} rows",
        flush=True,
    )


def _demand_exact_rows(engine: Engine, run: Run, world: World, attention: SampleAttention) -> bool:
    """Samples of a packed row, and ranks that share a row, come out as samples and rows do by themselves.

    Returns whether a micro-batch may be one row of all its samples, without padding between them.
    """
    assert run.data is not None
    dtype, rows = _dtype(engine.model), run.train.micro_batch
    joins = rows > 1 and attention.size == 1 and attention.tells_samples_apart
    if run.data.packing or joins:
        # transformers tells FlashAttention of samples in a single row only.
        difference = _probe(engine, world, attention, rows=1 if joins else min(2, rows))
        if run.data.packing:
            demand_exact_packing(difference, dtype)
        joins = joins and exact(difference, dtype)
    if attention.size > 1:
        demand_exact_sharing(_probe_sharing(engine, world, attention), dtype, size=attention.size)
    return joins


def _probe(engine: Engine, world: World, attention: SampleAttention, *, rows: int) -> float:
    plain, vocabulary = _asked(engine)

    def forward(input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        # Ranks that share rows are probed by themselves.
        alone = attention.size == 1
        with attention.spread(spans_of(position_ids)) if alone else contextlib.nullcontext():
            return plain(input_ids, position_ids)

    return world.max([packing_difference(forward, vocabulary, world.device, rows=rows)])[0]


def _probe_sharing(engine: Engine, world: World, attention: SampleAttention) -> float:
    forward, vocabulary = _asked(engine)
    return world.max([sharing_difference(forward, attention, vocabulary, world.device)])[0]


def _asked(engine: Engine) -> tuple[Callable[..., torch.Tensor], int]:
    """The model, in eval mode, as a probe asks it: ids and positions to logits; and its number of token ids."""

    def forward(input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return engine.module(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits

    engine.module.eval()
    return forward, engine.model.config.get_text_config().vocab_size


def _demand_fit(model: Any, tokenizer: Any, run: Run) -> None:
    """Tokenizer, rows and loss must suit the model that was loaded."""
    config = model.config.get_text_config()
    if len(tokenizer) > config.vocab_size:
        raise WishError(
            f"the tokenizer has {len(tokenizer)} tokens and the model's embedding {config.vocab_size} rows",
            "use the model's own tokenizer (leave model.tokenizer empty)",
        )
    context = getattr(config, "max_position_embeddings", None)
    too_long = beyond_context(run, context) if context else None
    if too_long is not None:
        raise WishError(too_long.what, too_long.fix)
    if "logits_to_keep" not in inspect.signature(_innermost(model).forward).parameters:
        raise WishError(
            f"{type(model).__name__} does not take logits_to_keep, which keeps prompts out of the output head",
            "use a causal language model that transformers itself implements",
        )


def _end_turns(model: Any, tokenizer: Any, facts: dict[str, Any]) -> None:
    """A model trained on chat ends its answers with the end-of-turn token: whoever generates must stop there too."""
    chat = any(source["format"] == "messages" for source in facts["sources"])
    turn = end_of_turn(tokenizer) if chat else None
    if turn is not None:
        ends = {tokenizer.eos_token_id, turn} - {None}
        _innermost(model).generation_config.eos_token_id = sorted(ends)


def _innermost(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _event(world: World) -> Callable[[], Any] | None:
    """What makes an event on the device's own clock; None where the host computes."""
    return (lambda: torch.cuda.Event(enable_timing=True)) if world.device.type == "cuda" else None


def _dtype(model: Any) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    names = ("torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
