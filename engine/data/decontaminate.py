"""Does a training row hold a held-out task? Overlap of n-grams of normalised words, with numpy alone.

Words are identifiers' parts, numbers and operators, lower-cased; space, quotes and comment signs do not
count, so re-indented or re-wrapped copies are found. A row overlaps a task when it holds at least half of the
task's 13-grams (of a shorter text: all of it, as one gram), or 50 of them, so that a long prompt without its
solution is found too. GPT-3 (arXiv 2005.14165, appendix C) takes one hit of 13 words; a share is asked for
here, since tasks of one generator have phrases in common by design.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import WishError

NGRAM = 13
THRESHOLD = 0.5
ENOUGH = 50
# Fewer words than this say nothing: `return x` is everywhere.
_FEWEST = 6
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s#\"']")

Texts = Mapping[str, str] | Sequence[str]
"""Held-out texts, named or not."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training row that holds a task: which, and which share of the task's n-grams."""

    row: str
    task: str
    share: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and what overlaps."""

    rows: int
    tasks: int
    overlaps: tuple[Overlap, ...]

    @property
    def line(self) -> str:
        """One line for a run's report."""
        return (
            f"compared {self.rows} training rows with {self.tasks} held-out tasks ({NGRAM}-grams of "
            f"normalised words, overlap from {THRESHOLD:.0%} or {ENOUGH} of a task's): {len(self.overlaps)} overlap"
        )


class Index:
    """The n-grams of all held-out tasks, ready to be looked up."""

    def __init__(self, texts: Texts) -> None:
        self._names = (
            list(texts) if isinstance(texts, Mapping) else [_name(i, t) for i, t in enumerate(texts)]
        )
        words = [_words(text) for text in (texts.values() if isinstance(texts, Mapping) else texts)]
        sizes = [min(len(each), NGRAM) if len(each) >= _FEWEST else 0 for each in words]
        grams = [_grams(each, size) for each, size in zip(words, sizes, strict=True)]
        self._totals = np.array([len(each) for each in grams], dtype=np.int64)
        self._sizes = sorted(set(sizes) - {0})
        every = np.concatenate([np.empty(0, dtype=np.uint64), *grams])
        order = np.argsort(every, kind="stable")
        self._grams = every[order]
        self._owners = np.repeat(np.arange(len(grams)), self._totals)[order]

    def __len__(self) -> int:
        return len(self._names)

    def find(self, row: str, text: str) -> list[Overlap]:
        """The tasks a training row holds, the largest share first."""
        words = _words(text)
        grams = np.concatenate([np.empty(0, dtype=np.uint64), *(_grams(words, size) for size in self._sizes)])
        first, last = (np.searchsorted(self._grams, grams, side=side) for side in ("left", "right"))
        hits = [self._owners[first[at] : last[at]] for at in np.flatnonzero(last > first)]
        if not hits:
            return []
        counts = np.bincount(np.concatenate(hits), minlength=len(self))
        shares = counts / np.maximum(self._totals, 1)
        held = np.flatnonzero((shares >= THRESHOLD) | (counts >= ENOUGH))
        return [Overlap(row, self._names[at], float(shares[at])) for at in held[np.argsort(-shares[held])]]


def compare(rows: Iterable[tuple[str, str]], texts: Texts) -> Report:
    """Compare training rows (id, text) with held-out texts."""
    index = Index(texts)
    count, overlaps = 0, list[Overlap]()
    for row, text in rows:
        count += 1
        overlaps += index.find(row, text)
    return Report(count, len(index), tuple(overlaps))


def refuse(report: Report) -> None:
    """Stop a run whose training rows hold tasks it will be judged by."""
    if report.overlaps:
        rows = {overlap.row for overlap in report.overlaps}
        shown = "; ".join(f"{o.row} holds {o.share:.0%} of {o.task}" for o in report.overlaps[:3])
        raise WishError(
            f"{len(rows)} of {report.rows} training rows overlap held-out tasks ({shown})",
            "remove those rows, or set `data.decontaminate: false` and read the score as contaminated",
        )


def _name(index: int, text: str) -> str:
    """A name for a text that came without one: its number and first words."""
    return f"task {index + 1} ({' '.join(text.split())[:40]!r})"


def _words(text: str) -> np.ndarray:
    """A text's words as 32-bit hashes, in uint64."""
    return np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], dtype=np.uint64)


def _grams(words: np.ndarray, size: int) -> np.ndarray:
    """Distinct hashed n-grams, uint64; none for size 0 or fewer words than that."""
    count = len(words) - size + 1
    if size == 0 or count < 1:
        return np.empty(0, dtype=np.uint64)
    hashed = np.full(count, size, dtype=np.uint64)
    # Products wrap around by intent: this is a hash.
    for shift in range(size):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + words[shift : shift + count]
        hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed)
