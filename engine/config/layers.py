"""Rules about how a model's layers run (`model.compile`, `model.activation_offload`, `parallel.float8`)."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.finding import Finding
from engine.config.run import Run


def offloaded_inputs_are_all_that_is_kept(run: Run, ranks: int) -> Iterator[Finding]:
    """Whatever a layer keeps for backward would be more than a host's link can carry in time."""
    if run.model.activation_offload and not run.model.activation_checkpointing:
        yield Finding(
            "model.activation_offload is on and model.activation_checkpointing is off",
            "turn activation_checkpointing on, which leaves a layer's input to move, or activation_offload off",
        )


def float8_is_of_trained_weights(run: Run, ranks: int) -> Iterator[Finding]:
    """16-bit weights that a layer holds whole are cast to 8 bits for each of their products."""
    wish = run.parallel.float8
    if wish == "none":
        return
    if run.parallel.precision != "bf16":
        yield Finding(
            f"parallel.float8 is {wish} and parallel.precision is {run.parallel.precision}",
            "set precision to bf16, which is what is kept between products",
        )
    if run.adapter.kind != "full":
        yield Finding(
            f"parallel.float8 is {wish} and adapter.kind is {run.adapter.kind}",
            "use adapter.kind full: beside an adapter's own small products little would be gained",
        )
    if run.parallel.strategy == "zero3":
        yield Finding(
            f"parallel.float8 is {wish} and parallel.strategy is zero3",
            "use fsdp2, as ZeRO-3's hooks are on linear layers of torch's own",
        )


def compiled_layers_have_whole_weights(run: Run, ranks: int) -> Iterator[Finding]:
    """ZeRO-3 fetches weights between the operations of a layer, where a compiled one has no between."""
    if run.model.compile and run.parallel.strategy == "zero3":
        yield Finding(
            "model.compile is on and parallel.strategy is zero3",
            "use fsdp2, which gathers a layer at a time, or zero2, or turn compile off",
        )
