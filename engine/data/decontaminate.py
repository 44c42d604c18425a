"""Does a training row hold a held-out task? Overlap of n-grams of words, and functions with the same syntax tree.

Re-indented and re-wrapped copies have the same words, renamed ones the same tree. A row overlaps a task when it
holds at least half of the task's 13-grams (of a shorter text: all of it, as one gram), or 50 of them, so that a
long prompt without its solution is found too. GPT-3 (arXiv 2005.14165, appendix C) takes one hit of 13 words; a
share is asked for here, since tasks of one generator have phrases in common by design. A row is a copy when a
function in it is the same as one of a task's own, names aside (`engine.data.functions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data import functions
from engine.data.grams import grams, words
from engine.errors import WishError

NGRAM = 13
THRESHOLD = 0.5
ENOUGH = 50
# Fewer words than this say nothing: `return x` is everywhere.
_FEWEST = 6

Texts = Mapping[str, str] | Sequence[str]
"""Held-out texts, named or not."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training row that holds a task: which, and which share of the task's n-grams."""

    row: str
    task: str
    share: float


@dataclass(frozen=True, slots=True)
class Copy:
    """A training row with a function that is a task's own, names aside: which row and task, and its name there."""

    row: str
    task: str
    function: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, what overlaps, and which functions are copies."""

    rows: int
    tasks: int
    overlaps: tuple[Overlap, ...]
    functions: int = 0
    references: int = 0
    copies: tuple[Copy, ...] = ()

    @property
    def contaminated(self) -> set[str]:
        """The rows that hold a task, by either sign."""
        return {overlap.row for overlap in self.overlaps} | {copy.row for copy in self.copies}

    @property
    def line(self) -> str:
        """One line for a run's report."""
        return (
            f"compared {self.rows} training rows with {self.tasks} held-out tasks ({NGRAM}-grams of "
            f"normalised words, overlap from {THRESHOLD:.0%} or {ENOUGH} of a task's), and their "
            f"{self.functions} Python functions with the tasks' {self.references} (normalised syntax trees of "
            f"{functions.FEWEST_NODES} nodes or more): {len(self.copies)} copies, {len(self.overlaps)} overlap"
        )

    def __add__(self, other: Report) -> Report:
        """The report of two parts of the rows, compared with the same texts."""
        return Report(
            self.rows + other.rows,
            self.tasks,
            self.overlaps + other.overlaps,
            self.functions + other.functions,
            self.references,
            self.copies + other.copies,
        )

    def counts(self) -> dict[str, int]:
        """The same in numbers, for a run's record."""
        return {
            "rows": self.rows,
            "tasks": self.tasks,
            "functions": self.functions,
            "reference_functions": self.references,
            "overlaps": len(self.overlaps),
            "function_copies": len(self.copies),
            "contaminated_rows": len(self.contaminated),
        }


class Index:
    """The n-grams of all held-out tasks, ready to be looked up."""

    def __init__(self, texts: Texts) -> None:
        named = _named(texts)
        self._names = list(named)
        held = [words(text) for text in named.values()]
        sizes = [min(len(each), NGRAM) if len(each) >= _FEWEST else 0 for each in held]
        found = [grams(each, size) for each, size in zip(held, sizes, strict=True)]
        self._totals = np.array([len(each) for each in found], dtype=np.int64)
        self._sizes = sorted(set(sizes) - {0})
        every = np.concatenate([np.empty(0, dtype=np.uint64), *found])
        order = np.argsort(every, kind="stable")
        self._grams = every[order]
        self._owners = np.repeat(np.arange(len(found)), self._totals)[order]

    def __len__(self) -> int:
        return len(self._names)

    def find(self, row: str, text: str) -> list[Overlap]:
        """The tasks a training row holds, the largest share first."""
        said = words(text)
        found = np.concatenate([np.empty(0, dtype=np.uint64), *(grams(said, size) for size in self._sizes)])
        first, last = (np.searchsorted(self._grams, found, side=side) for side in ("left", "right"))
        hits = [self._owners[first[at] : last[at]] for at in np.flatnonzero(last > first)]
        if not hits:
            return []
        counts = np.bincount(np.concatenate(hits), minlength=len(self))
        shares = counts / np.maximum(self._totals, 1)
        held = np.flatnonzero((shares >= THRESHOLD) | (counts >= ENOUGH))
        return [Overlap(row, self._names[at], float(shares[at])) for at in held[np.argsort(-shares[held])]]


class Comparison:
    """Held-out texts, ready to be compared with training rows, part by part."""

    def __init__(self, texts: Texts) -> None:
        named = _named(texts)
        self._index = Index(named)
        self._own = {key: task for task, text in named.items() for key in functions.references(text)}

    def look(self, rows: Iterable[tuple[str, str]]) -> Report:
        """Compare rows (id, text). Reports of parts add up to that of all rows."""
        count, written, overlaps, copies = 0, 0, list[Overlap](), list[Copy]()
        for row, text in rows:
            count += 1
            overlaps += self._index.find(row, text)
            there = functions.written(text) if self._own else {}
            written += len(there)
            copies += [Copy(row, self._own[key], name) for key, name in there.items() if key in self._own]
        return Report(count, len(self._index), tuple(overlaps), written, len(self._own), tuple(copies))


def compare(rows: Iterable[tuple[str, str]], texts: Texts) -> Report:
    """Compare training rows (id, text) with held-out texts."""
    return Comparison(texts).look(rows)


def refuse(report: Report) -> None:
    """Stop a run whose training rows hold tasks it will be judged by."""
    if not report.contaminated:
        return
    shown = [f"{o.row} holds {o.share:.0%} of {o.task}" for o in report.overlaps[:3]]
    told = {overlap.row for overlap in report.overlaps}
    renamed = [copy for copy in report.copies if copy.row not in told]
    shown += [f"{c.row} has {c.function}() of {c.task}, names aside" for c in renamed[:3]]
    raise WishError(
        f"{len(report.contaminated)} of {report.rows} training rows overlap held-out tasks ({'; '.join(shown)})",
        "remove those rows, or set `data.decontaminate: false` and read the score as contaminated",
    )


def _named(texts: Texts) -> Mapping[str, str]:
    """The texts by name; one that came without is called by its number and first words."""
    if isinstance(texts, Mapping):
        return texts
    return {f"task {at} ({' '.join(text.split())[:40]!r})": text for at, text in enumerate(texts, start=1)}
