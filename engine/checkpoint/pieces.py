"""Optimizer state that no world size owns: each rank writes the pieces it holds, any ranks read what they need of them.

Every strategy holds a flat, contiguous range of each trained weight, or of none. So a weight's name and an offset say
where a piece belongs, whoever cut it, and resharding is copying ranges: bits stay bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import TemperError, WishError

FILE = "rank-{}.pt"


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [start, start + length) of a trained weight, flattened, and what the optimizer keeps for them.

    Attributes:
        name: of the weight; of a whole partition where the optimizer's state cannot be told apart by weight.
        start: first element.
        master: fp32 values, [length].
        state: the optimizer's, by its own keys: tensors [length], numbers, and whatever else it keeps (blocks' scales).
    """

    name: str
    start: int
    master: Tensor
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """One past the last element."""
        return self.start + self.master.numel()


def write(folder: Path, rank: int, pieces: Iterable[Piece], scaling: dict[str, Any]) -> None:
    """Write what one rank holds; `scaling` is the fp16 loss scale's state, in plain numbers, the same on all ranks."""
    rows = [(piece.name, piece.start, piece.master.detach(), piece.state) for piece in pieces]
    torch.save({"pieces": rows, "scaling": scaling}, folder / FILE.format(rank))


class Saved:
    """The pieces of all ranks that wrote a checkpoint. Files are mapped: what is not asked for is not read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pieces: dict[str, list[Piece]] = defaultdict(list)
        self.scaling: dict[str, Any] = {}
        files = sorted(folder.glob(FILE.format("*")))
        if not files:
            raise WishError(
                f"{folder} holds no {FILE.format('N')}: an earlier version wrote it",
                "finish that run with the version it was started with, or start afresh in another `output` folder",
            )
        for file in files:
            value = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            self.scaling = value["scaling"]
            for row in value["pieces"]:
                self._pieces[row[0]].append(Piece(*row))

    def __contains__(self, name: str) -> bool:
        return name in self._pieces

    def cut(self, name: str, start: int, length: int) -> Piece:
        """Elements [start, start + length) of a weight, put together from whoever held them.

        Raises:
            WishError: the optimizer's state for them exists only in one piece with their neighbours.
            TemperError: some of them are in no file.
        """
        end = start + length
        held = sorted(
            (piece for piece in self._pieces.get(name, ()) if piece.start < end and piece.end > start),
            key=lambda piece: piece.start,
        )
        for piece in held:
            if (piece.start, piece.end) == (start, end):
                return piece
        covered = start
        for piece in held:
            if piece.start > covered:
                break
            covered = max(covered, piece.end)
        if covered < end:
            if not all(divisible(piece) for pieces in self._pieces.values() for piece in pieces):
                raise indivisible()  # whole partitions were written, under names of their own
            raise TemperError(
                f"{self.folder} lacks elements {covered} to {end} of {name}",
                "resume from an older checkpoint",
            )
        if not all(divisible(piece) for piece in held):
            raise indivisible()
        master = torch.empty(length, dtype=held[0].master.dtype)
        state = {key: _like(value, length) for key, value in held[0].state.items()}
        for piece in held:
            here = slice(max(start, piece.start) - start, min(end, piece.end) - start)
            there = slice(max(start, piece.start) - piece.start, min(end, piece.end) - piece.start)
            master[here] = piece.master[there]
            for key, value in piece.state.items():
                if spread(value):
                    state[key][here] = value[there]
        return Piece(name, start, master, state)


def spread(value: Any) -> bool:
    """Whether a value of an optimizer's state has elements, rather than being one number."""
    return isinstance(value, Tensor) and value.dim() > 0


def divisible(piece: Piece) -> bool:
    """Whether each element has its own state. 8-bit optimizers share scales between the elements of a block."""
    count = piece.master.numel()
    return all(v.numel() == count and v.is_floating_point() for v in piece.state.values() if spread(v))


def indivisible() -> WishError:
    """What to say where state cannot be cut."""
    return WishError(
        "this optimizer keeps state in blocks of elements, which cannot be divided anew among other ranks",
        "resume with the ranks and the strategy the checkpoint was written with, or train with adamw",
    )


def _like(value: Any, length: int) -> Any:
    return torch.empty(length, dtype=value.dtype) if spread(value) else value
