"""Rules about adapters: which key belongs to which kind, and what a kind cannot be put together with."""

from __future__ import annotations

from collections.abc import Iterator

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
}
"""The kinds each key means something to; `full` has none of them, and lets stand what a file holds for another kind."""


def keys_suit_the_kind(run: Run, ranks: int) -> Iterator[Finding]:
    """A key that its kind does not read would be a wish without effect."""
    adapter, untouched = run.adapter, Adapter()
    if adapter.kind == "full":
        return
    for key, kinds in KINDS_OF.items():
        value = getattr(adapter, key)
        if adapter.kind not in kinds and value != getattr(untouched, key):
            yield Finding(
                f"adapter.{key} is {value} and adapter.kind is {adapter.kind}, which has no {key}",
                f"leave adapter.{key} out, or use adapter.kind {' or '.join(kinds)}",
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
            "it takes its part out of the base's weights, and a 4-bit base cannot hold the rest: use init loftq or lora",
        )
    if adapter.dora:
        yield Finding(
            f"adapter.init is {adapter.init} and adapter.dora is on",
            "the result could not be written as an adapter of the base you named: use init default, or no dora",
        )
