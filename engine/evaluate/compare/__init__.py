"""Two evaluations side by side: whether they differ, in which tasks, and where each of these differs."""

from __future__ import annotations

from engine.evaluate.compare.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
