"""A text's words and their n-grams, as numbers that can be compared by the million, with numpy alone.

Words are identifiers' parts, numbers and operators, lower-cased; space, quotes and comment signs do not count,
so re-indented or re-wrapped copies have the same words.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s#\"']")


def words(text: str) -> np.ndarray:
    """A text's words as 32-bit hashes, in uint64 [words]."""
    return np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], dtype=np.uint64)


def grams(of: np.ndarray, size: int) -> np.ndarray:
    """Distinct hashed n-grams of words, uint64; none for size 0 or fewer words than that."""
    count = len(of) - size + 1
    if size == 0 or count < 1:
        return np.empty(0, dtype=np.uint64)
    hashed = np.full(count, size, dtype=np.uint64)
    # Products wrap around by intent: this is a hash.
    for shift in range(size):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + of[shift : shift + count]
        hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed)
