"""Rows to batches: sources, formats, fill-in-the-middle, masks, packing, order, loader."""

from __future__ import annotations

from engine.data.batch import IGNORED, Batch
from engine.data.chat import end_of_turn
from engine.data.fim import infill_prompt
from engine.data.loader import Loader, Validation
from engine.data.order import key
from engine.data.prepare import Prepared, prepare
from engine.data.tokenizer import load_tokenizer

__all__ = [
    "IGNORED",
    "Batch",
    "Loader",
    "Prepared",
    "Validation",
    "end_of_turn",
    "infill_prompt",
    "key",
    "load_tokenizer",
    "prepare",
]
