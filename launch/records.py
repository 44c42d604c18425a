"""The end of a run's metrics.jsonl, read without reading the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TAIL_BYTES = 65536


def tail(metrics: Path, size: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """The records in the last `size` bytes, oldest first; torn lines are left out, a missing file is empty."""
    try:
        with metrics.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            lines = file.read().splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def last_step(metrics: Path) -> int | None:
    """The last step logged."""
    steps = [record["step"] for record in tail(metrics) if isinstance(record.get("step"), int)]
    return steps[-1] if steps else None
