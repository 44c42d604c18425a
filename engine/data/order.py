"""Which sample comes when: a pure function of (seed, epoch, index), for any rank and world size.

Permutations come from a fixed hash (splitmix64) rather than a library's generator, so that a resumed run
keeps its order across versions of numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Order:
    """The samples of one epoch in stream order; three arrays of the same length.

    `passes` counts how often that row of that source came before: the key of its random choices.
    """

    sources: np.ndarray
    rows: np.ndarray
    passes: np.ndarray


def key(*parts: object) -> int:
    """A 64-bit number from a purpose and its parameters; the root of every random choice in this room."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def permutation(count: int, *, seed: int) -> np.ndarray:
    """A permutation of range(count), int64, drawn by `seed` (64 bits)."""
    with np.errstate(over="ignore"):
        mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.argsort(mixed, kind="stable")


def share(count: int, weight: float) -> int:
    """Rows a source of `count` rows gives to one epoch of the mixture."""
    return max(1, round(count * weight))


def epoch_order(counts: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int) -> Order:
    """The mixture's samples in epoch `epoch`.

    A source is an endless chain of shuffled passes over its rows; each epoch takes the next `share` of the
    chain. So a weight of 0.5 shows the other half next time, and a weight of 2 shows every row twice.
    """
    sources, rows, passes = [], [], []
    for source, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        take = share(count, weight)
        at = np.arange(epoch * take, (epoch + 1) * take, dtype=np.int64)
        of_pass, offset = np.divmod(at, count)
        picked = np.empty(take, dtype=np.int64)
        for number in range(int(of_pass[0]), int(of_pass[-1]) + 1):
            here = of_pass == number
            picked[here] = permutation(count, seed=key(seed, "source", source, number))[offset[here]]
        sources.append(np.full(take, source, dtype=np.int32))
        rows.append(picked)
        passes.append(of_pass.astype(np.int32))
    total = sum(len(part) for part in rows)
    mixed = permutation(total, seed=key(seed, "mixture", epoch))
    return Order(np.concatenate(sources)[mixed], np.concatenate(rows)[mixed], np.concatenate(passes)[mixed])


def split_of(sample_id: str, *, seed: int, validation: float, test: float) -> Split:
    """Which split a sample falls into: by the seed and its id alone, so adding rows moves none."""
    point = key(seed, "split", sample_id) / 2**64
    if point < test:
        return "test"
    return "validation" if point < test + validation else "train"
