"""How many products a second the makers of GPUs promise: dense peaks of 16-bit matrix products, without sparsity."""

from __future__ import annotations

import re

TFLOPS: dict[str, float] = {
    "b200": 2250,
    "h200": 989,
    "h100": 989,
    "h100-pcie": 756,
    "a100": 312,
    "a100-40gb": 312,
    "l40s": 362,
    "l40": 181,
    "a6000": 155,
    "6000-ada": 364,
    "a40": 150,
    "l4": 121,
    "a10": 125,
    "a10g": 70,
    "rtx5090": 209,
    "rtx4090": 165,
    "rtx3090": 71,
    "v100": 125,
    "v100-16gb": 125,
    "t4": 65,
}
"""10^12 floating-point operations a second, by Temper's name of the GPU."""

# As the driver names them. A variant that is not here (H100 NVL, a laptop's, a MIG slice) has another peak.
_NAMES = {
    "b200": r"B200",
    "h200": r"H200",
    "h100": r"H100 80GB HBM3",
    "h100-pcie": r"H100 PCIe",
    "a100": r"A100[- ](SXM4|PCIE|PCIe)-80GB|A100 80GB PCIe",
    "a100-40gb": r"A100-(SXM4|PCIE)-40GB",
    "l40s": r"L40S",
    "l40": r"L40",
    "a6000": r"RTX A6000",
    "6000-ada": r"RTX 6000 Ada Generation",
    "a40": r"A40",
    "l4": r"L4",
    "a10": r"A10",
    "a10g": r"A10G",
    "rtx5090": r"GeForce RTX 5090",
    "rtx4090": r"GeForce RTX 4090",
    "rtx3090": r"GeForce RTX 3090",
    "v100": r"V100-(SXM2|SXM3|PCIE)-32GB",
    "v100-16gb": r"V100-(SXM2|PCIE)-16GB",
    "t4": r"T4",
}


def peak_flops(device: str) -> float | None:
    """16-bit FLOPs a second of a GPU by its driver's name for it; None where that is not known for sure."""
    said = re.sub(r"^(NVIDIA|Tesla) +", "", device.strip())
    said = re.sub(r"^Tesla +", "", said)
    found = [name for name, pattern in _NAMES.items() if re.fullmatch(pattern, said)]
    return TFLOPS[found[0]] * 1e12 if found else None
