"""Rules about ranks that share a row (`parallel.sequence`)."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.shape import shape


def groups_are_whole(run: Run, ranks: int) -> Iterator[Finding]:
    """Every rank is in a group, and all groups have the same size."""
    shared = run.parallel.sequence
    if ranks % shared:
        fitting = [str(n) for n in range(2, ranks + 1) if ranks % n == 0]
        yield Finding(
            f"parallel.sequence is {shared} and there are {ranks} rank{'s' * (ranks > 1)}",
            f"use {'1, ' if fitting else '1'}{', '.join(fitting)}, or a multiple of {shared} ranks",
        )


def heads_are_shared_out(run: Run, ranks: int) -> Iterator[Finding]:
    """Attention is computed for whole heads, as many on each rank of a group."""
    shared = run.parallel.sequence
    known = shape(run.model.path) if shared > 1 else None
    if known is not None and known.heads % shared:
        fitting = [str(n) for n in range(1, known.heads + 1) if known.heads % n == 0]
        yield Finding(
            f"parallel.sequence is {shared} and the model has {known.heads} attention heads",
            f"use one of {', '.join(fitting)}",
        )


def attention_is_its_own(run: Run, ranks: int) -> Iterator[Finding]:
    """The exchange is around torch's own attention, a sample at a time."""
    wish = run.model.attention
    if run.parallel.sequence > 1 and wish not in ("auto", "sdpa"):
        yield Finding(
            f"parallel.sequence is {run.parallel.sequence} and model.attention is {wish}",
            "set model.attention to auto: samples are then told apart without a mask, by torch's own kernels",
        )


def noise_needs_whole_samples(run: Run, ranks: int) -> Iterator[Finding]:
    """A sample's noise is drawn in one piece, from its tokens; it is moved against itself by one gradient."""
    if run.parallel.sequence > 1 and run.train.neftune_alpha:
        yield Finding(
            f"parallel.sequence is {run.parallel.sequence} and train.neftune_alpha is {run.train.neftune_alpha:g}",
            "set neftune_alpha to 0, or sequence to 1",
        )
    if run.parallel.sequence > 1 and run.train.adversarial_epsilon:
        yield Finding(
            f"parallel.sequence is {run.parallel.sequence} and train.adversarial_epsilon is "
            f"{run.train.adversarial_epsilon:g}",
            "set adversarial_epsilon to 0, or sequence to 1",
        )
