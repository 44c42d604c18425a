"""What an evaluation's tasks were read from: file or hub id, with what tells one version from another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.evaluate.benchmarks import find
from engine.evaluate.benchmarks.sources import SOURCES
from engine.evaluate.hub import revision
from engine.evaluate.rows import opened

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tasks came from."""

    benchmark: str
    source: str | None
    """A file or a hub id; None: the benchmark is built in."""
    size: int | None = None
    """Bytes of a file, unpacked."""
    sha256: str | None = None
    """Of a file, unpacked."""
    revision: str | None = None
    """The commit of a hub id, where the client told it."""

    @classmethod
    def of(cls, benchmark: str, data: str | None) -> Origin:
        """What `data` names: a file is hashed; a hub id has its revision once its rows were read."""
        source = data or getattr(find(benchmark), "HUB_ID", None)
        if source is None or not Path(source).is_file():
            return cls(benchmark, source, revision=revision(source) if source else None)
        with opened(source) as file:
            size, sha256 = _weigh(file)
        return cls(benchmark, source, size, sha256)

    @property
    def pinned(self) -> str | None:
        """The known file that this one is; None: another one, or nothing is pinned."""
        known = SOURCES.get(self.benchmark)
        file = known.named(self.sha256) if known and self.sha256 else None
        return file.name if file else None

    @property
    def note(self) -> str | None:
        """A sentence where files are pinned and this one is none of them."""
        known = SOURCES.get(self.benchmark)
        if self.sha256 is None or self.pinned or known is None or not known.files:
            return None
        names = ", ".join(file.name for file in known.files)
        return (
            f"{self.source} (sha256 {self.sha256[:12]}, unpacked) differs from the pinned {names} of {known.origin}: "
            "figures of other files may not compare"
        )

    def as_json(self) -> dict[str, Any]:
        """The `data` of summary.json."""
        told = {"source": self.source, "bytes": self.size, "sha256": self.sha256, "revision": self.revision}
        return {**told, "pinned": self.pinned}


def _weigh(text: IO[bytes]) -> tuple[int, str]:
    """Bytes and SHA-256 of what is left to read."""
    size, digest = 0, hashlib.sha256()
    while piece := text.read(PIECE):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()
