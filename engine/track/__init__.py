"""What happened: metrics.jsonl always, TensorBoard and W&B when asked, and a line for the eye."""

from __future__ import annotations

from engine.track.journal import Journal, read
from engine.track.live import Line, Progress, count, duration, memory
from engine.track.perf import Perf, Totals
from engine.track.throughput import Meter
from engine.track.tracker import Tracker, memory_bytes

__all__ = [
    "Journal",
    "Line",
    "Meter",
    "Perf",
    "Progress",
    "Totals",
    "Tracker",
    "count",
    "duration",
    "memory",
    "memory_bytes",
    "read",
]
