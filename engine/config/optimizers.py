"""Rules about optimizers: which setting each reads, and which strategy can serve it."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.train import Train

ADAM = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
LION = ("lion", "lion_8bit", "paged_lion", "paged_lion_8bit")
READ_BY = {
    "beta1": (*ADAM, *LION, "muon"),
    "beta2": (*ADAM, *LION, "muon"),
    "epsilon": (*ADAM, "muon"),
}
"""The optimizers each setting means something to; all read the learning rate and the weight decay."""


def settings_suit_the_optimizer(run: Run, ranks: int) -> Iterator[Finding]:
    """A setting that its optimizer does not read would be a wish without effect."""
    train, untouched = run.train, Train()
    for key, readers in READ_BY.items():
        value, default = getattr(train, key), getattr(untouched, key)
        if train.optimizer not in readers and value != default:
            yield Finding(
                f"train.{key} is {value:g} and train.optimizer is {train.optimizer}, which does not read it",
                f"leave train.{key} at {default:g}, its default, or use {' or '.join(readers)}",
            )
