"""Rules about heads that tell classes: what they need, and what only a language model does."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.finding import Finding
from engine.config.run import Run

MEASURED = ("validation_accuracy", "validation_f1")
"""What a validation of classes measures beside the loss."""
MOST = 1000
WHOLE = ("none", "ddp", "zero1", "zero2")


def labels_suit_the_head(run: Run, ranks: int) -> Iterator[Finding]:
    """A head of classes has names for them, each once; an output head has none."""
    head, labels = run.model.head, run.model.labels
    if head == "language":
        if labels:
            yield Finding(
                f"model.labels has {len(labels)} names and model.head is language",
                "set model.head to sequence or token, or leave labels out",
            )
        return
    if not 2 <= len(labels) <= MOST:
        yield Finding(
            f"model.head is {head} and model.labels has {len(labels)} names",
            f"name 2 to {MOST} classes in model.labels",
        )
    doubled = sorted({name for name in labels if labels.count(name) > 1})
    if doubled:
        yield Finding(f"model.labels has {doubled[0]!r} more than once", "name each class once")


def classes_write_nothing(run: Run, ranks: int) -> Iterator[Finding]:
    """Programs are written by an output head."""
    if run.model.head != "language" and run.train.evaluate_every:
        yield Finding(
            f"train.evaluate_every is {run.train.evaluate_every} and a {run.model.head} head writes nothing",
            "set train.evaluate_every to 0; validation measures accuracy and F1",
        )


def classes_are_not_judged(run: Run, ranks: int) -> Iterator[Finding]:
    """Benchmarks run programs."""
    if run.model.head != "language":
        yield Finding(
            f"model.head is {run.model.head}, which writes no programs to judge",
            "accuracy and F1 of the validation rows are in metrics.jsonl",
        )


def heads_are_whole(run: Run, ranks: int) -> Iterator[Finding]:
    """Beside an adapter the head is trained as a copy, which is not sharded; each token is told by its own rank."""
    model, kind = run.model, run.adapter.kind
    if model.head == "language":
        return
    if run.parallel.sequence > 1:
        yield Finding(
            f"parallel.sequence is {run.parallel.sequence} and model.head is {model.head}",
            "set sequence to 1",
        )
    if kind not in ("full", "lora", "qlora"):
        yield Finding(
            f"adapter.kind is {kind} and model.head is {model.head}",
            "use full, lora or qlora: the head is trained beside",
        )
    if kind in ("lora", "qlora") and (run.adapter.init != "default" or run.adapter.new_tokens):
        yield Finding(
            f"model.head is {model.head} and adapter.{'init' if run.adapter.init != 'default' else 'new_tokens'} set",
            "leave it at its default",
        )
    if kind != "full" and run.parallel.strategy not in WHOLE:
        yield Finding(
            f"parallel.strategy is {run.parallel.strategy} and adapter.kind is {kind} with a {model.head} head",
            f"use {', '.join(WHOLE)}, or adapter.kind full",
        )
