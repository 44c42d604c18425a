"""Saved weights are opened again and compared with the model before anyone calls them good."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from engine.errors import TemperError

# What begins at zero: biases, and what makes an adapter change nothing at first.
MAY_BE_ZERO = (".bias", "lora_B.weight", "lora_embedding_B", ".vera_lambda_b", ".oft_R.weight")
_SHOWN = 3


def reopen(
    folder: Path,
    expected: Mapping[str, tuple[int, ...]],
    *,
    tied: Collection[str] = (),
    may_be_zero: Collection[str] = MAY_BE_ZERO,
) -> None:
    """Open the safetensors of `folder`, whole or sharded, and compare them with `expected`.

    ZeRO-3 and adapters are known to save empty or zero tensors without a word; this is where that is noticed.

    Args:
        folder: holds one `*.safetensors`, or shards and their `*.safetensors.index.json`.
        expected: name to shape, as the saved files should have them.
        tied: names that share another's storage, so that a file may leave them out.
        may_be_zero: endings of names whose tensors may be all zero.

    Raises:
        TemperError: a file, name or shape is missing, too many or wrong, or values are zero or not finite.
    """
    faults: list[str] = []
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in _tensors(folder):
        found[name] = tuple(tensor.shape)
        if name in expected and tuple(expected[name]) == found[name]:
            faults += _fault(name, tensor, zero_allowed=name.endswith(tuple(may_be_zero)))
    faults += [f"{name} is missing" for name in sorted(set(expected) - set(found) - set(tied))]
    faults += [f"{name} is not the model's" for name in sorted(set(found) - set(expected) - set(tied))]
    faults += [
        f"{name} has shape {list(found[name])}, the model {list(expected[name])}"
        for name in sorted(set(found) & set(expected))
        if found[name] != tuple(expected[name])
    ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise _refusal(folder, "; ".join(faults[:_SHOWN]) + more)


def _fault(name: str, tensor: torch.Tensor, *, zero_allowed: bool) -> list[str]:
    if tensor.numel() == 0:
        return [f"{name} is empty"]
    if not tensor.is_floating_point():
        return [] if zero_allowed or bool(tensor.any()) else [f"{name} is all zero"]
    norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float32))
    if norm != norm or norm == float("inf"):
        return [f"{name} is not finite"]
    return [f"{name} is all zero"] if norm == 0.0 and not zero_allowed else []


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the folder's files, one at a time, so that memory holds one."""
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - a handle is not a dict
                    yield name, handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _refusal(folder, f"{file.name} cannot be read ({error})") from error


def _files(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise _refusal(folder, f"there are {len(files)} safetensors files and no index, one is wanted")
        return files
    weight_map: dict[str, str] = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"]
    files = [folder / name for name in sorted(set(weight_map.values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise _refusal(folder, f"{indices[0].name} names {', '.join(absent[:_SHOWN])}, which is not there")
    return files


def _refusal(folder: Path, what: str) -> TemperError:
    return TemperError(
        f"the weights saved in {folder} are not the model's: {what}",
        "do not use this folder; the checkpoints saved before it are untouched",
    )
