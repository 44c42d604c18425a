"""Never lose, never lie: checkpoints that are there whole or not at all, and say what they are."""

from __future__ import annotations

from engine.checkpoint.load import resume
from engine.checkpoint.manifest import Manifest, Torn, sync_tree
from engine.checkpoint.save import WEIGHTS, Progress, save
from engine.checkpoint.state import capture_rng, fingerprint, restore_rng, shapes
from engine.checkpoint.store import DiskFull, Found, Rejected, Store, smaller_is_better
from engine.checkpoint.verify import reopen

__all__ = [
    "DiskFull",
    "Found",
    "WEIGHTS",
    "Manifest",
    "Progress",
    "Rejected",
    "Store",
    "Torn",
    "capture_rng",
    "fingerprint",
    "reopen",
    "restore_rng",
    "resume",
    "save",
    "shapes",
    "smaller_is_better",
    "sync_tree",
]
