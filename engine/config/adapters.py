"""Rules about adapters: which key belongs to which kind, and what a kind cannot be put together with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.sections import Adapter

LOW_RANK = ("lora", "qlora")
VIRTUAL = ("prefix", "prompt", "ptuning")
KINDS_OF = {
    "rank": (*LOW_RANK, "adalora", "vera"),
    "target_rank": ("adalora",),
    "budget_start": ("adalora",),
    "budget_end": ("adalora",),
    "budget_every": ("adalora",),
    "orthogonality": ("adalora",),
    "virtual_tokens": VIRTUAL,
    "target_modules": (*LOW_RANK, "adalora", "ia3", "vera", "oft"),
    "alpha": (*LOW_RANK, "adalora"),
    "dropout": (*LOW_RANK, "adalora", "vera", "oft"),
    "rslora": LOW_RANK,
    "dora": LOW_RANK,
    "init": LOW_RANK,
    "block_size": ("oft",),
    "new_tokens": LOW_RANK,
}
"""The kinds each key means something to; `full` has none of them, and lets stand what a file holds for another kind."""
WHOLE_STATE = ("adamw", "paged_adamw", "lion", "paged_lion")
"""Optimizers whose state has an element for each of a weight, whichever part of it a rank holds."""


def keys_suit_the_kind(run: Run, ranks: int) -> Iterator[Finding]:
    """A key that its kind does not read would be a wish without effect."""
    adapter, untouched = run.adapter, Adapter()
    if adapter.kind == "full":
        return
    for key, kinds in KINDS_OF.items():
        value, default = getattr(adapter, key), getattr(untouched, key)
        if adapter.kind not in kinds and value != default:
            yield Finding(
                f"adapter.{key} is {_plain(value)} and adapter.kind is {adapter.kind}, which has no {key}",
                f"leave adapter.{key} at {_plain(default)}, its default, or use adapter.kind {' or '.join(kinds)}",
            )


def start_suits_the_base(run: Run, ranks: int) -> Iterator[Finding]:
    """PiSSA and OLoRA move a part of the base into the adapter; LoftQ makes up for the bits of a quantised one."""
    adapter = run.adapter
    if adapter.kind not in LOW_RANK or adapter.init == "default":
        return
    if adapter.init == "loftq":
        if adapter.kind != "qlora":
            yield Finding(
                f"adapter.init is loftq and adapter.kind is {adapter.kind}, which loses no bits",
                "use adapter.kind qlora, or init default",
            )
        return
    if adapter.kind == "qlora":
        yield Finding(
            f"adapter.init is {adapter.init} and adapter.kind is qlora",
            "it takes its part out of the base, and 4 bits cannot hold the rest: use init loftq, or adapter.kind lora",
        )
    if adapter.dora:
        yield Finding(
            f"adapter.init is {adapter.init} and adapter.dora is on",
            "the result could not be written as an adapter of the base you named: use init default, or no dora",
        )


def dora_knows_its_base(run: Run, ranks: int) -> Iterator[Finding]:
    """PEFT takes the lengths of 4-bit weights from a copy of their layer, which ZeRO-3 knows nothing of."""
    adapter, strategy = run.adapter, run.parallel.strategy
    if adapter.kind == "qlora" and adapter.dora and strategy == "zero3":
        yield Finding(
            "adapter.dora is on, adapter.kind is qlora and parallel.strategy is zero3, which shards what DoRA copies",
            "use zero2 (or none, ddp, zero1), no dora, or adapter.kind lora",
        )


def budget_shrinks(run: Run, ranks: int) -> Iterator[Finding]:
    """AdaLoRA starts with more ranks than it ends with, and takes them away one part of the way through."""
    adapter = run.adapter
    if adapter.kind != "adalora":
        return
    if adapter.target_rank >= adapter.rank:
        yield Finding(
            f"adapter.target_rank {adapter.target_rank} is not less than adapter.rank {adapter.rank}",
            f"start with more, such as adapter.rank {adapter.target_rank * 3 // 2 + 1}, or use adapter.kind lora",
        )
    if adapter.budget_start >= adapter.budget_end:
        yield Finding(
            f"adapter.budget_start {adapter.budget_start:g} is not before adapter.budget_end {adapter.budget_end:g}",
            "set it lower: both are shares of the steps",
        )
    if run.train.optimizer not in WHOLE_STATE:
        yield Finding(
            f"adapter.kind is adalora and train.optimizer is {run.train.optimizer}, which keeps no state by weight",
            f"use {' or '.join(WHOLE_STATE)}",
        )
    if run.parallel.precision == "fp16":
        yield Finding(
            "adapter.kind is adalora and parallel.precision is fp16, whose scale its penalty would not have",
            "use bf16 or fp32",
        )


def virtual_tokens_come_first(run: Run, ranks: int) -> Iterator[Finding]:
    """They stand before every text, so a row has one text, whole, and a cache in front of it."""
    kind = run.adapter.kind
    if kind not in VIRTUAL:
        return
    if run.data is not None and run.data.packing:
        yield Finding(
            f"adapter.kind is {kind} and data.packing is on, where only a row's first text would see its tokens",
            "set data.packing to false",
        )
    if run.parallel.sequence > 1:
        yield Finding(
            f"parallel.sequence is {run.parallel.sequence} and adapter.kind is {kind}, whose tokens are in every part",
            "set sequence to 1",
        )
    if run.model.attention not in ("auto", "sdpa", "eager"):
        yield Finding(
            f"model.attention is {run.model.attention} and adapter.kind is {kind}",
            "use auto, sdpa or eager",
        )
    if kind == "prefix" and run.model.activation_checkpointing:
        yield Finding(
            "adapter.kind is prefix and model.activation_checkpointing is on, which drops the keys and values",
            "set activation_checkpointing to false, or use adapter.kind prompt or ptuning",
        )


def new_tokens_have_whole_rows(run: Run, ranks: int) -> Iterator[Finding]:
    """Rows of an embedding are trained apart from the rest where the embedding is whole."""
    words, strategy = run.adapter.new_tokens, run.parallel.strategy
    if not words or run.adapter.kind not in LOW_RANK:
        return
    if len(set(words)) < len(words):
        yield Finding(f"adapter.new_tokens {list(words)} names a word twice", "name each once")
    if strategy in ("zero3", "fsdp2"):
        yield Finding(
            f"adapter.new_tokens is set and parallel.strategy is {strategy}, which shards the embedding",
            "use none, ddp, zero1 or zero2",
        )


def _plain(value: Any) -> str:
    """As a person writes it in a run file."""
    return (
        str(list(value))
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
