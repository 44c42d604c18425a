"""Losses far above what was usual a moment ago: written down with the samples of the step, worst first."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import protocol
from engine.data import Batch
from engine.dist import World
from engine.track import Journal

KEPT = 32
"""Logged losses looked back on; before there are so many none is called a spike."""
FAR = 8.0
"""Standard deviations above the median, estimated by the median absolute deviation, which no spike moves."""
SMALLEST_SPREAD = 0.01
"""Share of the median taken for a standard deviation at least: where losses hardly vary, every step would be one."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What losses were of late: median, and standard deviation as the median absolute deviation has it."""

    median: float
    spread: float


@dataclass(frozen=True, slots=True)
class Part:
    """A micro-batch of a spike: where it was, its loss per trained token, and its samples."""

    rank: int
    loss: float
    samples: tuple[str, ...]


class Spikes:
    """Looks at each logged loss, which all ranks have the same of; begins anew with each attempt."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / protocol.SPIKES
        self._recent: deque[float] = deque(maxlen=KEPT)

    def forget_after(self, step: int) -> None:
        """Drop what was written of steps that will be run again (rank 0)."""
        if self.path.is_file():
            journal = Journal(self.path)
            journal.truncate_after(step)
            journal.close()

    def far_above(self, loss: float) -> Usual | None:
        """What was usual, where this loss is far above it; the loss is remembered."""
        usual = self._usual()
        self._recent.append(loss)
        return usual if usual and loss > usual.median + FAR * usual.spread else None

    def write(
        self, world: World, record: dict[str, float], batches: Sequence[Batch], losses: Sequence[float]
    ) -> Part:
        """Write a spike with the micro-batches of all ranks (a collective); the worst of them.

        `losses` are the summed losses of this rank's `batches`.
        """
        mine = [
            Part(world.rank, loss / max(1, batch.trained_tokens), batch.sample_ids)
            for batch, loss in zip(batches, losses, strict=True)
        ]
        parts = sorted((part for rank in world.gather(mine) for part in rank), key=lambda part: -part.loss)
        if world.first:
            journal = Journal(self.path)
            journal.append({**record, "micro_batches": [asdict(part) for part in parts]})
            journal.close()
        return parts[0]

    def _usual(self) -> Usual | None:
        if len(self._recent) < KEPT:
            return None
        median = statistics.median(self._recent)
        deviation = statistics.median(abs(loss - median) for loss in self._recent)
        # 1.4826: of normally distributed numbers, the standard deviation over the median absolute one.
        return Usual(median, max(1.4826 * deviation, SMALLEST_SPREAD * abs(median)))
