"""Never lose, never lie: checkpoints that are there whole or not at all, and say what they are."""

from __future__ import annotations

from engine.checkpoint.background import Published, Saves
from engine.checkpoint.load import resume
from engine.checkpoint.manifest import Manifest, Torn, sync_folder, sync_tree
from engine.checkpoint.pieces import Piece, Saved, divisible, indivisible, spread
from engine.checkpoint.save import WEIGHTS, Progress, save, write_weights
from engine.checkpoint.state import fingerprint, shapes
from engine.checkpoint.store import DiskFull, Found, Rejected, Store, smaller_is_better
from engine.checkpoint.verify import reopen

__all__ = [
    "DiskFull",
    "Found",
    "WEIGHTS",
    "Manifest",
    "Piece",
    "Progress",
    "Published",
    "Rejected",
    "Saved",
    "Saves",
    "Store",
    "Torn",
    "divisible",
    "fingerprint",
    "indivisible",
    "reopen",
    "resume",
    "save",
    "shapes",
    "smaller_is_better",
    "spread",
    "sync_folder",
    "sync_tree",
    "write_weights",
]
