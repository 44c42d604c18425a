"""Rules about adapters: which key belongs to which kind, and what a kind cannot be put together with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.sections import Adapter

LOW_RANK = ("lora", "qlora")
KINDS_OF = {
    "rank": (*LOW_RANK, "vera"),
    "alpha": LOW_RANK,
    "dropout": (*LOW_RANK, "vera", "oft"),
    "rslora": LOW_RANK,
    "dora": LOW_RANK,
    "init": LOW_RANK,
    "block_size": ("oft",),
    "new_tokens": LOW_RANK,
}
"""The kinds each key means something to; `full` has none of them, and lets stand what a file holds for another kind."""


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
