"""What compilers made, kept in the memory of the pool: one compile for all runs of a program, no folder shared."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from ..verdict import File, Verdict

_MOST_BYTES = 256 << 20
_BY_CHANCE = ("infra", "wall_limit")
"""Ends that another try may not have."""


@dataclass(frozen=True, slots=True)
class Made:
    """A compiler's verdict, with what it built in `files`, and how much memory keeping that takes."""

    verdict: Verdict
    size: int


class Builds:
    """The verdicts of compilers, the least recently used dropped first.

    A key holds all that a compiler sees, so programs can share only what is equal in every byte.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.made = 0
        """How many compilers were run."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Made] = OrderedDict()
        self._size = 0
        self._making: dict[bytes, Future[Verdict]] = {}

    def get(self, key: bytes, make: Callable[[], Verdict]) -> Verdict:
        """What is kept under `key`, else what `make` makes; of several who ask at a time one makes and all get it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].verdict
            future = self._making.get(key)
            mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if mine:
            self._make(key, make, future)
        return future.result()

    def _make(self, key: bytes, make: Callable[[], Verdict], future: Future[Verdict]) -> None:
        try:
            verdict = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._making[key]
            self.made += 1
            if verdict.name not in _BY_CHANCE:
                self._keep(key, verdict)
        future.set_result(verdict)

    def _keep(self, key: bytes, verdict: Verdict) -> None:
        size = (
            sum(len(file.data) for file in verdict.files) + len(verdict.stdout) + len(verdict.stderr) + 1000
        )
        if size > self.most_bytes:
            return
        self._kept[key] = Made(verdict, size)
        self._size += size
        while self._size > self.most_bytes:
            self._size -= self._kept.popitem(last=False)[1].size


def key_of(language: str, version: str, command: Iterable[str], files: Iterable[File]) -> bytes:
    """A digest of all a compiler sees: no two different inputs can be read as one, since each part tells its length."""
    digest = hashlib.sha256()
    parts = [
        language.encode(),
        version.encode(),
        *(part.encode("utf-8", "surrogateescape") for part in command),
    ]
    for file in files:
        parts += [file.name.encode("utf-8", "surrogateescape"), b"x" if file.executable else b"-", file.data]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
