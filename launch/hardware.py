"""Hardware: GPUs by name, and how many of them a run would have."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from engine.errors import WishError
from engine.peaks import TFLOPS


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator. `memory_gib` is what the driver reports, a little below the name's figure for some.

    `tflops` is the vendor's dense peak of 16-bit matrix products (no sparsity); `link` and `host` are the bandwidth
    to the GPUs beside it and to host memory, in GB/s one way, from the vendors' data sheets.
    """

    name: str
    memory_gib: float
    tflops: float
    link: float
    host: float = 25.0


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200", 178.0, TFLOPS["b200"], 900, 50),
        Gpu("h200", 139.8, TFLOPS["h200"], 450, 50),
        Gpu("h100", 79.1, TFLOPS["h100"], 450, 50),
        Gpu("h100-pcie", 79.1, TFLOPS["h100-pcie"], 50, 50),
        Gpu("a100", 79.1, TFLOPS["a100"], 300),
        Gpu("a100-40gb", 39.4, TFLOPS["a100-40gb"], 300),
        Gpu("l40s", 44.4, TFLOPS["l40s"], 25),
        Gpu("l40", 44.4, TFLOPS["l40"], 25),
        Gpu("a6000", 47.4, TFLOPS["a6000"], 25),
        Gpu("6000-ada", 47.4, TFLOPS["6000-ada"], 25),
        Gpu("a40", 44.4, TFLOPS["a40"], 25),
        Gpu("l4", 22.0, TFLOPS["l4"], 12, 12),
        Gpu("a10", 22.0, TFLOPS["a10"], 25),
        Gpu("a10g", 22.0, TFLOPS["a10g"], 25),
        Gpu("rtx5090", 31.3, TFLOPS["rtx5090"], 25),
        Gpu("rtx4090", 23.5, TFLOPS["rtx4090"], 25),
        Gpu("rtx3090", 23.6, TFLOPS["rtx3090"], 25),
        Gpu("v100", 31.7, TFLOPS["v100"], 150, 12),
        Gpu("v100-16gb", 15.8, TFLOPS["v100-16gb"], 150, 12),
        Gpu("t4", 14.6, TFLOPS["t4"], 12, 12),
    )
}
SYNONYMS = {
    "h100-80gb": "h100",
    "a100-80gb": "a100",
    "h100-sxm": "h100",
    "h200-141gb": "h200",
    "4090": "rtx4090",
}
SYNONYMS |= {"3090": "rtx3090", "5090": "rtx5090", "v100-32gb": "v100"}
# Volta and Turing have no bf16 matrix units.
NO_BF16 = ("v100", "v100-16gb", "t4")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The GPUs of a place. `name` is as the user said it."""

    name: str
    nodes: int
    gpus_per_node: int
    gpu: Gpu
    host_memory_gib: float | None = None
    price_per_gpu_hour: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node


def gpu(name: str, said: str) -> Gpu:
    """A GPU by name; `said` is where the name was written.

    Raises:
        WishError: it is not in the table.
    """
    known = SYNONYMS.get(name.lower(), name.lower())
    if known not in GPUS:
        near = difflib.get_close_matches(known, GPUS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WishError(
            f"{said} names the GPU {name!r}, which is not known", f"{hint}known: {', '.join(GPUS)}"
        )
    return GPUS[known]
