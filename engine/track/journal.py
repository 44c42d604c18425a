"""metrics.jsonl: one JSON object a line, written at once, so that a kill loses the last line at most."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine import protocol
from engine.errors import TemperError


class Journal:
    """An append-only file of records. A torn last line, left by a kill, is removed when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path)
        self._file = path.open("ab", buffering=0)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; `time`, wall-clock seconds, is added. Numbers that are not finite become null.

        Raises:
            TemperError: the line cannot be written (a full disk, most likely).
        """
        line = json.dumps(_plain({**record, "time": round(protocol.now(), 3)}), allow_nan=False) + "\n"
        try:
            # Unbuffered, one call: the line is with the kernel when this returns, so a kill cannot take it.
            self._file.write(line.encode())
        except OSError as error:
            raise TemperError(
                f"{self.path} cannot be written ({error})", "free space on that disk"
            ) from error

    def truncate_after(self, step: int) -> int:
        """Drop records of steps after `step`, which will be run again.

        Returns:
            How many records were dropped. Records without a step stay.
        """
        records = read(self.path)
        kept = [record for record in records if record.get("step", step) <= step]
        if len(kept) < len(records):
            self._file.close()
            _rewrite(self.path, kept)
            self._file = self.path.open("ab", buffering=0)
        return len(records) - len(kept)

    def close(self) -> None:
        """Bring the file to the disk and let go of it."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, oldest first; a torn last line is left out, a missing file is empty."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        record = _parse(line)
        if record is not None:
            records.append(record)
    return records


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _repair(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("r+b") as file:
        text = file.read()
        body, _, tail = text.rpartition(b"\n")
        if tail and _parse(tail) is None:
            file.truncate(len(body) + 1 if body else 0)
        elif tail:
            file.write(b"\n")


def _rewrite(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
