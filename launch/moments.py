"""What an optimizer keeps of each weight it steps, and needs for a moment while it does."""

from __future__ import annotations

from engine.config import Run
from launch.architecture import Architecture

MOMENT = 4


def optimizer_bytes(run: Run, elements: int, model: Architecture) -> tuple[int, int]:
    """Device and host bytes of the optimizer's state for `elements` trained weights, master weights left out.

    AdamW (arXiv 1711.05101): two moments in fp32; Lion (arXiv 2302.06675): one. 8-bit (arXiv 2110.02861): a byte each
    and an fp32 constant for each 256. Paged ones may be moved to host memory, and are counted there. Adafactor (arXiv
    1804.04235): a row and a column of each matrix, well below a hundredth of the rest. Muon (arXiv 2502.16982): one
    moment of the layers' matrices, AdamW's two of the rest.
    """
    name = run.train.optimizer
    if name == "adafactor":
        return round(MOMENT * elements / max(1, min(model.shape.hidden, 1024))), 0
    if name == "muon":
        rest = model.embedding + model.head if run.adapter.kind == "full" else 0
        return MOMENT * (elements + rest), 0
    moments = 1 if "lion" in name else 2
    each = elements + MOMENT * -(-elements // 256) if name.endswith("8bit") else MOMENT * elements
    return (0, moments * each) if name.startswith("paged") else (moments * each, 0)


def step_bytes(run: Run, model: Architecture) -> int:
    """Device bytes an optimizer needs beside its state in the midst of a step.

    Muon orthogonalises one matrix at a time: its momentum in fp32, two copies of it in 16 bits, and two products with
    itself (torch/optim/_muon.py).
    """
    if run.train.optimizer != "muon":
        return 0
    sides = [(linear.inputs, linear.outputs) for linear in model.linears]
    if run.adapter.kind != "full":
        sides = [(run.adapter.rank, max(pair)) for pair in sides]
    return max(8 * long * short + 4 * min(long, short) ** 2 for long, short in sides)
