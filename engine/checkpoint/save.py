"""Write a checkpoint: weights others can load, state a resume needs, checked before it is called good."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoint import pieces
from engine.checkpoint.pieces import Piece, Saved
from engine.checkpoint.state import fingerprint, shapes
from engine.checkpoint.store import Store
from engine.checkpoint.verify import MAY_BE_ZERO, reopen
from engine.config import Adapter, Run, Train
from engine.dist import World
from engine.errors import TemperError

WEIGHTS, STATE = "weights", "state"
ADAPTER_SINCE = (
    "target_rank",
    "budget_start",
    "budget_end",
    "budget_every",
    "orthogonality",
    "virtual_tokens",
)
"""Settings of adapters that older checkpoints have no word of."""
# fp32 master weight, two Adam moments, and the copy that others load, at its widest.
BYTES_PER_TRAINED_WEIGHT = 16


class Savable(Protocol):
    """What is saved: a model under a strategy (see `engine.train.engine.Engine`)."""

    model: Any

    def weights(self, *, every_rank: bool) -> dict[str, Tensor]:
        """Trainable weights, whole, on rank 0."""

    def pieces(self) -> list[Piece]:
        """Master weights and optimizer state this rank is to write."""

    def restore(self, saved: Saved) -> None:
        """Take from all ranks' pieces what this one holds."""

    @property
    def scaling(self) -> dict[str, Any]:
        """State of the fp16 loss scale."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `trained_tokens`, `tokens` and `seconds` are totals over all attempts and ranks."""

    step: int
    trained_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0
    """Measurements of the watched metric since it last improved."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one rank is to write of a step, and the facts that a later start must know.

    Attributes:
        weights: trainable weights, whole, on rank 0; empty elsewhere.
        buffers: what the model keeps beside its parameters, on rank 0.
    """

    step: int
    facts: dict[str, Any]
    pieces: list[Piece]
    scaling: dict[str, Any]
    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]


def save(
    store: Store,
    progress: Progress,
    *,
    engine: Savable,
    tokenizer: Any,
    run: Run,
    world: World,
    files: Mapping[str, str],
    metrics: Mapping[str, float],
    copied: bool = False,
) -> Path:
    """Save a step's checkpoint (a collective) and return its folder.

    Args:
        files: SHA-256 of the data's files, by name: a resume on others would be another run.
        copied: whether to write a copy, as a save in the background does.

    Raises:
        TemperError: no room, or the weights read back are not the model's; older checkpoints are untouched.
    """
    taken = take(store, progress, engine=engine, run=run, world=world, files=files, copied=copied)
    write(store, taken, engine.model, tokenizer, world)
    world.barrier()
    together(world, lambda: store.publish(taken.step, metrics=metrics, facts=taken.facts))
    return store.path(taken.step)


def take(
    store: Store,
    progress: Progress,
    *,
    engine: Savable,
    run: Run,
    world: World,
    files: Mapping[str, str],
    copied: bool,
) -> Taken:
    """Make room for a step's checkpoint and gather what this rank writes of it (a collective).

    Where it is `copied`, training may go on while it is written; else it is good until the next step.
    """
    trained = sum(_elements(shape) for shape in shapes(engine.model, trainable_only=True).values())
    needed = trained * BYTES_PER_TRAINED_WEIGHT
    together(world, lambda: store.begin(progress.step, needed_bytes=needed))
    facts = wishes(run, world, files) | {
        "fingerprint": fingerprint(engine.model),
        "progress": _plain(progress),
    }
    own = _copy if copied else _same
    held = [
        Piece(
            piece.name,
            piece.start,
            own(piece.master),
            {key: own(value) for key, value in piece.state.items()},
        )
        for piece in engine.pieces()
    ]
    weights = {name: own(weight) for name, weight in engine.weights(every_rank=False).items()}
    buffers = (
        {name: own(buffer) for name, buffer in _persistent_buffers(engine.model).items()}
        if world.first
        else {}
    )
    return Taken(progress.step, facts, held, dict(engine.scaling), weights, buffers)


def write(store: Store, taken: Taken, model: Any, tokenizer: Any, world: World) -> None:
    """Write this rank's part of a checkpoint, which nobody sees before it is published."""
    with store.guard(taken.step) as folder:
        state = folder / STATE
        state.mkdir(exist_ok=True)
        pieces.write(state, world.rank, taken.pieces, taken.scaling)
        if world.first:
            write_weights(folder / WEIGHTS, model, taken.weights, tokenizer, buffers=taken.buffers)


def wishes(run: Run, world: World, files: Mapping[str, str]) -> dict[str, Any]:
    """The part of a Run, and of its data, that a resume may not change without becoming another run."""
    # The optimizer's own settings come back with its state, so a change of them would pass unnoticed.
    optimizer = ("optimizer", "weight_decay", "beta1", "beta2", "epsilon")
    kept = {"train": ("global_batch", *optimizer), "parallel": ("precision",)}
    picked = {
        f"{section}.{key}": getattr(getattr(run, section), key)
        for section, keys in kept.items()
        for key in keys
    }
    # Known of since later: a run that leaves them alone agrees with a checkpoint that has no word of them.
    untouched = Train()
    since = (
        "layer_decay",
        "learning_rate_factors",
        "label_smoothing",
        "neftune_alpha",
        "adversarial_epsilon",
    )
    for key in since:
        if getattr(run.train, key) != getattr(untouched, key):
            picked[f"train.{key}"] = getattr(run.train, key)
    data = (
        run.data.model_dump(mode="json", exclude={"processes", "decontaminate", "cache", "cache_gib"})
        if run.data
        else None
    )
    adapter = run.adapter.model_dump(mode="json")
    for key in ADAPTER_SINCE:
        if adapter[key] == getattr(Adapter(), key):
            del adapter[key]
    model = {f"model.{key}": getattr(run.model, key) for key in ("path", "revision", "tokenizer", "init")}
    if run.model.head != "language":
        model |= {"model.head": run.model.head, "model.labels": list(run.model.labels)}
    others = {"seed": run.seed, "adapter": adapter, "data": data, "data files": dict(files)}
    place = {"world_size": world.size, "strategy": run.parallel.strategy}
    return place | {"wishes": picked | model | others}


def write_weights(
    folder: Path,
    model: Any,
    weights: dict[str, Tensor],
    tokenizer: Any,
    *,
    buffers: dict[str, Tensor] | None = None,
) -> None:
    """Write what `from_pretrained` takes (an adapter alone, for a PEFT model), then read it back and compare.

    `buffers` are the model's persistent ones; None: as they are now.

    Raises:
        TemperError: names, shapes or values on disk are not the model's.
    """
    expected = shapes(model, trainable_only=True)
    if hasattr(model, "peft_config"):
        buffers = {}  # the base's, which is not written
        # An adapted embedding is frozen as well: without the switch, PEFT would write a copy of it, whole.
        # Imported here: transformers' modelling takes seconds, and a store is opened without it.
        from engine.model import published

        settings, written = published(model, weights)
        if settings.is_prompt_learning:
            _write_virtual_tokens(folder, model, settings, written)
        else:
            with _settings(model, settings):
                model.save_pretrained(str(folder), state_dict=written, save_embedding_layers=False)
        expected = _as_adapter(expected, weights, written)
    else:
        buffers = _persistent_buffers(model) if buffers is None else buffers
        model.save_pretrained(str(folder), state_dict=weights | buffers)
        held = {name: tuple(buffer.shape) for name, buffer in buffers.items()}
        expected = _as_published(model, expected | held)
    tokenizer.save_pretrained(str(folder))
    _open_as_the_rest(folder)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    reopen(folder, expected, tied=set(tied), may_be_zero=(*MAY_BE_ZERO, *buffers))


def _open_as_the_rest(folder: Path) -> None:
    """safetensors writes files for the owner alone; weights are for those who may read the settings beside them."""
    mode = next(folder.glob("*config.json")).stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


def _write_virtual_tokens(folder: Path, model: Any, settings: Any, written: dict[str, Tensor]) -> None:
    """As PEFT lays them down; it would take them from the model, where they may be sharded or a step further."""
    settings = copy.copy(settings)
    settings.inference_mode = True
    settings.base_model_name_or_path = model.get_base_model().name_or_path
    settings.save_pretrained(str(folder))
    save_file(written, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@contextlib.contextmanager
def _settings(model: Any, settings: Any) -> Iterator[None]:
    """Within this block PEFT writes these settings instead of those trained with."""
    held = model.peft_config["default"]
    model.peft_config["default"] = settings
    try:
        yield
    finally:
        model.peft_config["default"] = held


def _as_adapter(
    expected: dict[str, tuple[int, ...]], weights: Mapping[str, Tensor], written: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes in an adapter's file: the model's, but for what `published` adds or makes wider."""
    expected = {name: shape for name, shape in expected.items() if name in written}
    other = {name: tuple(t.shape) for name, t in written.items() if t is not weights.get(name)}
    # PEFT leaves the adapter's own name out of the file, and writes DoRA's lengths as it first had them.
    return {
        re.sub(
            r"(?<=lora_magnitude_vector)\.default\.weight$|\.modules_to_save\.default|\.default(?=\.|$)",
            "",
            name,
        ): shape
        for name, shape in (expected | other).items()
    }


def _persistent_buffers(model: Any) -> dict[str, Tensor]:
    """What a model keeps beside its parameters, such as the bias of a router; no strategy shards it."""
    kept = model.state_dict().keys()
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in kept}


def _as_published(model: Any, expected: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the hub's format: transformers holds some models otherwise, e.g. experts in one tensor."""
    from transformers.core_model_loading import revert_weight_conversion

    blank = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, blank).items()}


def together(world: World, act: Any) -> None:
    """Rank 0 acts; if it cannot, every rank raises its error, so that none waits for it."""
    error: TemperError | None = None
    if world.first:
        try:
            act()
        except TemperError as raised:
            error = raised
    error = world.share(error)
    if error is not None:
        raise error


def _same(value: Any) -> Any:
    return value


def _copy(value: Any) -> Any:
    """A tensor of its own in host memory; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    held = value.detach()
    return held.clone() if held.device.type == "cpu" else held.cpu()


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _plain(progress: Progress) -> dict[str, Any]:
    return {name: getattr(progress, name) for name in Progress.__slots__}
