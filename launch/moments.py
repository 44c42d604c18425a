"""What an optimizer keeps of each weight it steps, and needs for a moment while it does."""

from __future__ import annotations

from engine.config import Run
from launch.architecture import Architecture

MOMENT = 4


def optimizer_bytes(run: Run, elements: int, model: Architecture) -> tuple[int, int]:
    """Device and host bytes of the optimizer's state for `elements` trained weights, master weights left out.

    AdamW (arXiv 1711.05101): two moments in fp32; Lion (arXiv 2302.06675): one. 8-bit (arXiv 2110.02861): a byte each
    and an fp32 constant for each 256. Paged ones may be moved to host memory, and are counted there. Adafactor (arXiv
    1804.04235): a row and a column of each matrix, well below a hundredth of the rest.
    """
    name = run.train.optimizer
    if name == "adafactor":
        return round(MOMENT * elements / max(1, min(model.shape.hidden, 1024))), 0
    moments = 1 if "lion" in name else 2
    each = elements + MOMENT * -(-elements // 256) if name.endswith("8bit") else MOMENT * elements
    return (0, moments * each) if name.startswith("paged") else (moments * each, 0)
