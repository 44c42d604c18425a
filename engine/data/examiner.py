"""What is found out about rows by reading each of them once: tokens, copies, special tokens, held-out tasks."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from engine.data.batch import Encoded
from engine.data.decontaminate import Comparison, Report
from engine.data.formats import Sample
from engine.data.tokenize import Encoder

# A chunk ends at either: what is in memory does not depend on how long rows are.
_ROWS = 512
_CHARACTERS = 1 << 19
# Chunks on their way for each worker: one in work, one that waits.
_AHEAD = 2


Asked = tuple[Sample, bool, int]
"""A row, whether it will be trained, and the number of the corpus it belongs to."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are looked at together: samples, whether each will be trained, and the corpus each belongs to."""

    samples: list[Sample]
    trained: list[bool]
    corpora: list[int]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found in a chunk.

    Attributes:
        encoded: tokens of each row; empty where none were asked for.
        digests: 64 bits of each text's hash.
        spelling: how many rows that are trained spell a special token.
        report: what its trained rows have in common with held-out tasks; None where none are known.
    """

    chunk: Chunk
    encoded: list[Encoded]
    digests: np.ndarray
    spelling: int
    report: Report | None


class Examiner:
    """Looks at chunks, the same in any process."""

    def __init__(self, tokenizer: Any, encoder: Encoder | None, comparison: Comparison | None) -> None:
        names = sorted((name for name in tokenizer.all_special_tokens if name), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._encoder = encoder
        self._comparison = comparison

    def look(self, chunk: Chunk) -> Seen:
        """Look at a chunk.

        Raises:
            WishError: a row cannot be encoded.
        """
        texts = [sample.text for sample in chunk.samples]
        rows = [
            (sample.id, text)
            for sample, text, trained in zip(chunk.samples, texts, chunk.trained, strict=True)
            if trained
        ]
        return Seen(
            chunk,
            self._encoder.encode(chunk.samples) if self._encoder else [],
            np.array([_digest(text) for text in texts], dtype=np.uint64),
            sum(self._special.search(text) is not None for _, text in rows),
            self._comparison.look(rows) if self._comparison else None,
        )


def examine(rows: Iterable[Asked], examiner: Examiner, processes: int) -> Iterator[Seen]:
    """Look at rows in their order, over worker processes where more than one is asked for."""
    chunks = _chunks(rows)
    first = list(islice(chunks, 2))
    if processes == 1 or len(first) < 2:
        yield from map(examiner.look, chain(first, chunks))
        return
    # Spawned, not forked: the parent may hold threads of torch and of the tokenizer.
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_adopt, initargs=(examiner,)
    ) as pool:
        waiting = deque[Any]()
        for chunk in chain(first, chunks):
            waiting.append(pool.submit(_look, chunk))
            if len(waiting) > processes * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _chunks(rows: Iterable[Asked]) -> Iterator[Chunk]:
    chunk, characters = Chunk([], [], []), 0
    for sample, trained, corpus in rows:
        chunk.samples.append(sample)
        chunk.trained.append(trained)
        chunk.corpora.append(corpus)
        characters += len(sample.text)
        if len(chunk.samples) == _ROWS or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = Chunk([], [], []), 0
    if chunk.samples:
        yield chunk


def _digest(text: str) -> int:
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


_worker_examiner: Examiner | None = None


def _adopt(examiner: Examiner) -> None:
    """Keep the examiner in a worker, so that it travels once and not with every chunk."""
    global _worker_examiner
    _worker_examiner = examiner


def _look(chunk: Chunk) -> Seen:
    assert _worker_examiner is not None
    return _worker_examiner.look(chunk)
