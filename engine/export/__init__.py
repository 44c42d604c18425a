"""Out of the house: an adapter and its base as one model, measured before it is called good."""

from __future__ import annotations

from engine.export.bound import Bound, Divergence
from engine.export.merge import merge
from engine.export.publish import Exported, Wish, export_merged

__all__ = ["Bound", "Divergence", "Exported", "Wish", "export_merged", "merge"]
