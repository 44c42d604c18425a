"""Rows that say the same: exact copies (spaces aside), and near ones by the share of words in a row they share.

Near copies are found by MinHash and banding (Broder, "On the resemblance and containment of documents", 1997; Lee
et al., "Deduplicating Training Data Makes Language Models Better", arXiv 2107.06499), and then counted exactly:
two rows are near when the Jaccard index of their 5-grams of words is at least 0.8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.grams import grams, words

NGRAM = 5
NEAR = 0.8
# 16 bands of 4: rows with an index of 0.8 meet in one of them with a chance of 0.9998.
_BANDS, _DEPTH = 16, 4
# Of many rows in one band only so many are compared: the groups they form are found by any of them.
_COMPARED = 8

_RANDOM = np.random.default_rng(20)
_FACTORS = _RANDOM.integers(1, 2**63, size=_BANDS * _DEPTH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of rows, by their places: the same text, and nearly the same text."""

    exact: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, ...], ...]

    @property
    def exact_rows(self) -> int:
        """Rows that would go if each exact group kept one."""
        return sum(len(group) - 1 for group in self.exact)

    @property
    def near_rows(self) -> int:
        """Rows that would go after that, if each near group kept one."""
        return sum(len(group) - 1 for group in self.near)


def find(rows: Sequence[tuple[str, str]]) -> Duplicates:
    """Duplicates among rows (place, text). Near groups name one row of each exact group."""
    same: dict[bytes, list[int]] = {}
    for at, (_, text) in enumerate(rows):
        plain = " ".join(text.split()).encode("utf-8", "surrogatepass")
        same.setdefault(hashlib.blake2b(plain, digest_size=16).digest(), []).append(at)
    firsts = [group[0] for group in same.values()]
    near = _near([rows[at][1] for at in firsts])
    return Duplicates(
        tuple(tuple(rows[at][0] for at in group) for group in same.values() if len(group) > 1),
        tuple(tuple(rows[firsts[at]][0] for at in group) for group in near),
    )


def _near(texts: Sequence[str]) -> list[list[int]]:
    """Groups of at least two texts that are near to one another, directly or over a third."""
    parents = list(range(len(texts)))
    bands: dict[tuple[int, bytes], list[int]] = {}
    for at, text in enumerate(texts):
        own = _shingles(text)
        if not len(own):
            continue
        for number, band in enumerate(_signature(own).reshape(_BANDS, _DEPTH)):
            met = bands.setdefault((number, band.tobytes()), [])
            for other in met:
                if (
                    _root(parents, other) != _root(parents, at)
                    and _jaccard(own, _shingles(texts[other])) >= NEAR
                ):
                    parents[_root(parents, at)] = _root(parents, other)
            if len(met) < _COMPARED:
                met.append(at)
    groups: dict[int, list[int]] = {}
    for at in range(len(texts)):
        groups.setdefault(_root(parents, at), []).append(at)
    return [group for group in groups.values() if len(group) > 1]


def _shingles(text: str) -> np.ndarray:
    """A text's distinct 5-grams of words; a shorter text is one gram."""
    said = words(text)
    return grams(said, min(len(said), NGRAM))


def _signature(shingles: np.ndarray) -> np.ndarray:
    """The smallest of the shingles under each of the hashes, uint64 [bands * depth]."""
    smallest = []
    for factor in _FACTORS:
        hashed = shingles * factor
        smallest.append((hashed ^ (hashed >> np.uint64(32))).min())
    return np.array(smallest, dtype=np.uint64)


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _root(parents: list[int], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at
