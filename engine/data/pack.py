"""Fill rows with whole samples: best-fit decreasing (Johnson 1973; for packing, arXiv 2404.10830)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Packing:
    """Rows of samples: row r holds samples `members[offsets[r]:offsets[r + 1]]`. Both int64."""

    members: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> np.ndarray:
        """The samples of one row."""
        return self.members[self.offsets[index] : self.offsets[index + 1]]


def singles(count: int) -> Packing:
    """One sample a row: what training without packing sees."""
    return Packing(np.arange(count, dtype=np.int64), np.arange(count + 1, dtype=np.int64))


def best_fit(lengths: np.ndarray, capacity: int) -> Packing:
    """Pack samples of `lengths` tokens into rows of `capacity`; each sample lies in exactly one row.

    Longest first, each into the fullest row that still takes it. The set of free spaces is one Python integer
    used as a bit set, so the fullest fitting row is the lowest set bit at or above the length: O(capacity /
    64) machine words a sample, about a second for a million samples. The number of rows depends on the
    multiset of lengths only.

    Raises:
        ValueError: a sample is empty or longer than `capacity`; callers drop, cut or refuse those before.
    """
    if len(lengths) and (int(lengths.max()) > capacity or int(lengths.min()) < 1):
        raise ValueError(
            f"samples of 1 to {capacity} tokens can be packed, got {lengths.min()} to {lengths.max()}"
        )
    row_of = np.empty(len(lengths), dtype=np.int64)
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces, rows = 0, 0
    decreasing = np.argsort(-lengths, kind="stable")
    for sample, length in zip(decreasing.tolist(), lengths[decreasing].tolist(), strict=True):
        fitting = spaces >> length
        if fitting:
            space = (fitting & -fitting).bit_length() - 1 + length
            row = open_rows[space].pop()
            if not open_rows[space]:
                spaces ^= 1 << space
        else:
            space, row, rows = capacity, rows, rows + 1
        left = space - length
        if left:
            open_rows[left].append(row)
            spaces |= 1 << left
        row_of[sample] = row
    members = np.argsort(row_of, kind="stable")
    offsets = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of, minlength=rows), out=offsets[1:])
    return Packing(members, offsets)
