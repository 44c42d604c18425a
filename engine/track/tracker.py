"""What happened, told once: to metrics.jsonl always, to TensorBoard and W&B when asked, and to the eye."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TextIO

from engine import protocol
from engine.config import Track
from engine.track.journal import Journal
from engine.track.live import Line, Progress
from engine.track.sinks import TensorBoard, WeightsAndBiases

_LIVE = {"auto": None, "yes": True, "no": False}


class Tracker:
    """The one teller of a run: rank 0 has an enabled one, the others one that does nothing.

    Args:
        folder: the run folder.
        settings: the Run's `track` section.
        enabled: whether this rank tells.
        config: the effective Run as plain data, shown by W&B.
        stream: where progress goes; None: standard error.

    Raises:
        WishError: TensorBoard or W&B is asked for and cannot be had.
    """

    def __init__(
        self,
        folder: Path,
        settings: Track,
        *,
        enabled: bool = True,
        config: Mapping[str, Any] | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._journal = Journal(folder / protocol.METRICS)
        self._line = Line(stream, live=_LIVE[settings.live])
        self._tensorboard = TensorBoard(folder) if settings.tensorboard else None
        self._wandb = WeightsAndBiases(folder, settings.wandb, config or {}) if settings.wandb else None

    def log(self, record: Mapping[str, Any]) -> None:
        """Tell one record. TensorBoard and W&B get its numbers, where it has a `step`."""
        if not self._enabled:
            return
        self._journal.append(record)
        step = record.get("step")
        numbers = _numbers(record)
        if step is not None and numbers:
            for sink in (self._tensorboard, self._wandb):
                if sink is not None:
                    sink.write(int(step), numbers)

    def truncate_after(self, step: int) -> int:
        """Forget the records of steps after `step`, since a resumed run will tell them again.

        Returns:
            How many records of metrics.jsonl were dropped.
        """
        if not self._enabled:
            return 0
        if self._tensorboard is not None:
            self._tensorboard.forget_after(step)
        return self._journal.truncate_after(step)

    def progress(self, progress: Progress) -> None:
        """Show where the run stands; cheap enough for every step."""
        if self._enabled:
            self._line.show(progress)

    def say(self, text: str) -> None:
        """Show a sentence that stays."""
        if self._enabled:
            self._line.say(text)

    def close(self) -> None:
        """Finish all of them."""
        if not self._enabled:
            return
        self._line.close()
        self._journal.close()
        for sink in (self._tensorboard, self._wandb):
            if sink is not None:
                sink.close()
        self._enabled = False

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def memory_bytes() -> int:
    """Peak of this process's CUDA memory where it uses CUDA, else the memory it holds now (RSS)."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a record, nested ones by path (`a/b`), the step left out."""
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, Real) and not isinstance(value, bool) and name != "step":
            numbers[str(name)] = float(value)
    return numbers
