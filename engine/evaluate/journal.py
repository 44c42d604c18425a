"""An append-only file of JSON lines that survives a kill at any byte: what it holds is not done again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.errors import TemperError
from engine.evaluate.lock import hold

SYNC_SECONDS = 1.0


class Journal:
    """Writes one journal.

    A line is in the kernel's hands when `append` returns, so killing the process loses nothing; it is on the
    disk within a second, so losing the machine loses little. Each record gets `elapsed`, the seconds since
    the one before, so that a journal knows how long its work took however often it was interrupted.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b")
        hold(self._file, path)
        self._drop_torn_line()
        self._last = self._synced = time.monotonic()

    def _drop_torn_line(self) -> None:
        """Cut what a killed process left of its last line, or the next one would be glued to it."""
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            self._file.truncate(end)

    def append(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add one record; returns it as written."""
        now = time.monotonic()
        record = record | {"elapsed": round(now - self._last, 6)}
        self._last = now
        try:
            self._file.write(json.dumps(record).encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise TemperError(
                f"{self._path} cannot be written ({error})", "free space on that disk, run again"
            ) from error
        if now - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = now
        return record

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a journal that may still be written to, less torn lines: their work is redone."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and isinstance(record, dict):
                yield record
