"""Speed over the last steps: tokens a second, seconds a step, and when the run will be over."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Meter:
    """A sliding window over steps. Time spent `aside` (validation, saving) counts for the end, not the speed.

    Args:
        window: steps looked back on.
        clock: seconds, monotonic.
    """

    def __init__(self, window: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # One entry a step border: (when, seconds aside so far, tokens so far, trained tokens so far).
        self._borders: deque[tuple[float, float, int, int]] = deque([(clock(), 0.0, 0, 0)], maxlen=window + 1)
        self._aside = 0.0

    def step(self, tokens: int, trained_tokens: int) -> None:
        """A step is done.

        Args:
            tokens: tokens of the step over all ranks, padding left out.
            trained_tokens: those among them that the loss looks at.
        """
        _, _, before, trained_before = self._borders[-1]
        border = (self._clock(), self._aside, before + tokens, trained_before + trained_tokens)
        self._borders.append(border)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time in this block is not training."""
        began = self._clock()
        try:
            yield
        finally:
            self._aside += self._clock() - began

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second while training; 0 before the first step."""
        return self._rate(2)

    @property
    def trained_tokens_per_second(self) -> float:
        """Trained tokens a second while training; 0 before the first step."""
        return self._rate(3)

    @property
    def seconds_per_step(self) -> float | None:
        """Wall seconds a step takes, all included; None before the first step."""
        steps = len(self._borders) - 1
        return (self._borders[-1][0] - self._borders[0][0]) / steps if steps else None

    def eta_seconds(self, steps_left: int) -> float | None:
        """Wall seconds until `steps_left` more steps are done; None before the first step."""
        each = self.seconds_per_step
        return None if each is None else each * steps_left

    def _rate(self, column: int) -> float:
        first, last = self._borders[0], self._borders[-1]
        seconds = (last[0] - first[0]) - (last[1] - first[1])
        return (last[column] - first[column]) / seconds if seconds > 0 else 0.0
