"""Training rows keep their distance: none holds half of a held-out task's 10-grams of words.

A held-out combination still shares whole lines with rows that differ in one operation. Such rows are left out here, so
that the check in `engine.data.decontaminate`, which looks at longer n-grams, finds nothing to refuse: a test holds
the two together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

NGRAM = 10
SHARE = 0.5
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s#\"']")

Gram = tuple[str, ...]


class HeldOut:
    """The n-grams of texts that training must not come near."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._owners: dict[Gram, list[int]] = defaultdict(list)
        self._totals: list[int] = []
        for owner, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            grams = _grams(words, min(NGRAM, len(words)))
            self._totals.append(len(grams))
            for gram in grams:
                self._owners[gram].append(owner)
        self._sizes = sorted({len(gram) for gram in self._owners})

    def near(self, text: str) -> bool:
        """Whether a text holds at least half of the n-grams of one of them."""
        words = _WORD.findall(text.lower())
        grams = [gram for size in self._sizes for gram in _grams(words, size)]
        hits = Counter(owner for gram in grams for owner in self._owners.get(gram, ()))
        return any(count >= SHARE * self._totals[owner] for owner, count in hits.items())


def _grams(words: list[str], size: int) -> set[Gram]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
