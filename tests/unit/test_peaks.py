"""Vendors' peaks: a GPU is known by the driver's name for it, and a near one is not taken for it."""

from __future__ import annotations

import pytest

from engine.peaks import _NAMES, TFLOPS, peak_flops
from launch.hardware import GPUS

DRIVER = {
    "NVIDIA B200": 2250,
    "NVIDIA H200": 989,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA L40S": 362,
    "NVIDIA L40": 181,
    "NVIDIA L4": 121,
    "NVIDIA A10G": 70,
    "NVIDIA A10": 125,
    "NVIDIA RTX 6000 Ada Generation": 364,
    "NVIDIA RTX A6000": 155,
    "NVIDIA GeForce RTX 4090": 165,
    "Tesla V100-SXM2-16GB": 125,
    "Tesla T4": 65,
}


@pytest.mark.parametrize("name", DRIVER)
def test_a_gpu_by_the_drivers_name(name: str) -> None:
    assert peak_flops(name) == DRIVER[name] * 1e12


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "cpu", ""],
)
def test_a_variant_is_not_guessed(name: str) -> None:
    assert peak_flops(name) is None


def test_plan_and_card_know_the_same_gpus() -> None:
    assert GPUS.keys() == TFLOPS.keys() == _NAMES.keys()
    assert all(gpu.tflops == TFLOPS[name] for name, gpu in GPUS.items())
