"""How much memory a rank uses at most for a while, and how much is left beside that."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")
# What allocators say that have no error of their own.
_FULL_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
)


class Gauge:
    """Peaks of one rank: of CUDA's allocator where it computes there, else of the memory the process holds.

    Args:
        device: where the rank computes.
        neighbours: ranks on this machine, which share the host's memory.
    """

    def __init__(self, device: torch.device, neighbours: int) -> None:
        self._device = device
        self._neighbours = neighbours

    def reset(self) -> None:
        """Begin to look for the peak."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with suppress(OSError):  # the highest mark then stays that of the whole process, which is no less
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """The most bytes held since `reset`."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return int(torch.cuda.max_memory_allocated(self._device))
        return _held("VmHWM")

    def headroom(self, peak: int) -> int:
        """Bytes that are still free when this rank, and on a host its neighbours too, holds `peak`."""
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            return int(free + torch.cuda.memory_reserved(self._device) - peak)
        return _available() - self._neighbours * max(0, peak - _held("VmRSS"))

    def capacity(self) -> int:
        """Bytes there are in all; 0 where that is not known."""
        if self._device.type == "cuda":
            return int(torch.cuda.mem_get_info(self._device)[1])
        return 0


def ran_out(error: BaseException) -> bool:
    """Whether an error means that there was no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _FULL_WORDS)


def _held(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _available() -> int:
    """Free host memory: the machine's, or less where a control group (a container, a job) has a limit of its own."""
    pages = os.sysconf("SC_PAGE_SIZE")
    host = os.sysconf("SC_AVPHYS_PAGES") * pages
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                host = int(line.split()[1]) * 1024
    return int(min(host, host, *(_left(folder) for folder in _groups())))


def _groups() -> list[Path]:
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        parts = [line.split(":", 2) for line in lines]
        own = [path.lstrip("/") for _, names, path in parts if not names or "memory" in names.split(",")]
        roots = (CGROUPS, CGROUPS / "memory", CGROUPS / "unified")
        return [root / path for root in roots for path in (*own, "")]
    return []


def _left(folder: Path) -> float:
    """Bytes left of a group's limit; infinite without one. Its file cache is taken for memory that can be had back."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            bound = int((folder / limit).read_text(encoding="ascii"))
            stat = dict(
                line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            )
            cached = int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))
            return bound - int((folder / used).read_text(encoding="ascii")) + cached
    return math.inf
