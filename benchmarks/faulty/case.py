"""The fault matrix: one hundred ways for one rank of three, or the launcher, to go wrong."""

from __future__ import annotations

from dataclasses import dataclass

WORLD_SIZE = 3
FAULTS = ("exception", "out-of-memory", "sigkill", "sigstop", "sleep", "exit-0", "exit-1", "disk-full")
"""What a rank may do: raise; be killed by the kernel as its memory runs out; be killed; be stopped; sleep for ever;
leave with 0 or 1 and without a word; find the run folder's disk full."""
LAUNCHER = "launcher-killed"
PLACES = ((1, "forward"), (4, "data"), (7, "backward"), (9, "save"))
HANGS = ("sigstop", "sleep")


@dataclass(frozen=True, slots=True)
class Case:
    """Rank `rank` goes wrong at this step and phase."""

    fault: str
    rank: int
    step: int
    phase: str

    def __str__(self) -> str:
        return f"{self.fault} rank {self.rank} step {self.step} {self.phase}"


def cases() -> list[Case]:
    """All one hundred; those of the launcher are triggered by a rank that comes to the place."""
    found = [
        Case(fault, rank, step, phase)
        for fault in FAULTS
        for rank in range(WORLD_SIZE)
        for step, phase in PLACES
    ]
    return found + [
        Case(LAUNCHER, rank % WORLD_SIZE, step, phase) for rank, (step, phase) in enumerate(PLACES)
    ]
