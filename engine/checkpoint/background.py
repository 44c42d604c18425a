"""The saves of a run, one at a time: at once, or written while the training goes on."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from engine.checkpoint.save import Progress, Savable, Taken, save, take, together, write
from engine.checkpoint.store import DiskFull, Store, unwritable
from engine.config import Run
from engine.dist import World
from engine.errors import TemperError


class _Act:
    """A call in a thread of its own, whose error is kept for whoever asks.

    The thread is no daemon: a process that ends meanwhile waits for the file that is being written.
    """

    def __init__(self, call: Callable[[], Any], step: int) -> None:
        self.error: TemperError | None = None
        self.failed_at = 0.0
        self._call = call
        self._step = step
        self._thread = Thread(target=self._run, name=f"save of step {step}")
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the call has returned or failed."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Return when it has."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self.failed_at = time.time()
            self.error = error if isinstance(error, TemperError) else unwritable(self._step, error)


@dataclass(slots=True)
class _Pending:
    """A save under way: every rank writes its part; when all have, rank 0 publishes."""

    taken: Taken
    metrics: Mapping[str, float]
    began: float
    writing: _Act
    publishing: _Act | None = None
    agreed: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that is on the shelf: its step, and seconds since the training was held up for it."""

    step: int
    seconds: float


class Saves:
    """Saves checkpoints of one run; every call but `state` is a collective.

    In the background each rank copies what it is to write into host memory at a step border and goes on. How far the
    ranks are crosses with the counts of every step, so that all know at the same border that all have written, or that
    one could not. Until it is published, a checkpoint does not exist: a crash falls back to the one before it.

    Args:
        store: the run's shelf.
        engine: what is saved.
        tokenizer: saved beside the weights.
        run: the Run; `checkpoint.background` says how.
        world: the ranks.
        files: SHA-256 of the data's files, by name.
    """

    def __init__(
        self,
        store: Store,
        *,
        engine: Savable,
        tokenizer: Any,
        run: Run,
        world: World,
        files: Mapping[str, str],
    ) -> None:
        self._store = store
        self._engine = engine
        self._run = run
        self._world = world
        self._files = files
        self._background = run.checkpoint.background
        # A tokenizer that is being written refuses to encode; the copy is the writer's alone.
        self._tokenizer = copy.deepcopy(tokenizer) if self._background and world.first else tokenizer
        self._pending: _Pending | None = None

    def save(self, progress: Progress, metrics: Mapping[str, float], *, at_once: bool) -> list[Published]:
        """Save a step, or begin to; what has been published by then.

        Raises:
            TemperError: this save or the one under way failed; older checkpoints are untouched.
        """
        began = time.monotonic()
        published = self.finish()
        if not self._background or at_once:
            save(
                self._store,
                progress,
                engine=self._engine,
                tokenizer=self._tokenizer,
                run=self._run,
                world=self._world,
                files=self._files,
                metrics=metrics,
            )
            return [*published, Published(progress.step, time.monotonic() - began)]
        taken = take(
            self._store,
            progress,
            engine=self._engine,
            run=self._run,
            world=self._world,
            files=self._files,
            copied=True,
        )
        writing = _Act(
            lambda: write(self._store, taken, self._engine.model, self._tokenizer, self._world), taken.step
        )
        self._pending = _Pending(taken, dict(metrics), began, writing)
        return published

    def state(self) -> tuple[int, int, int]:
        """Whether this rank has written its part, has published, has failed: to be summed over all ranks."""
        pending = self._pending
        if pending is None:
            return 0, 0, 0
        acts = [act for act in (pending.writing, pending.publishing) if act is not None]
        failed = any(act.done and act.error is not None for act in acts)
        published = pending.publishing is not None and pending.publishing.done
        return int(pending.writing.done), int(published), int(failed)

    def agree(self, state: Sequence[int]) -> list[Published]:
        """Go on with what all ranks' states, summed, allow; what has been published.

        Raises:
            TemperError: a rank could not write its part; older checkpoints are untouched.
        """
        written, published, failed = state
        pending = self._pending
        if pending is None:
            return []
        if failed or published:
            return self.finish()
        if written == self._world.size and not pending.agreed:
            pending.agreed = True
            self._publish(pending)
        return []

    def finish(self) -> list[Published]:
        """Wait for the save under way, if there is one; what has been published.

        Raises:
            TemperError: it failed; older checkpoints are untouched.
        """
        pending = self._pending
        if pending is None:
            return []
        self._pending = None
        pending.writing.wait()
        ends = self._world.gather((pending.writing.failed_at, pending.writing.error))
        errors = [error for _, error in sorted(ends, key=lambda end: end[0]) if error is not None]
        if errors:
            if self._world.first:
                self._store.abandon(pending.taken.step)
            # The first to fail takes the folder away, which the others then miss.
            raise next((error for error in errors if isinstance(error, DiskFull)), errors[0])
        together(self._world, lambda: self._published(pending))
        return [Published(pending.taken.step, time.monotonic() - pending.began)]

    def _publish(self, pending: _Pending) -> None:
        if self._world.first:
            step, facts = pending.taken.step, pending.taken.facts
            pending.publishing = _Act(
                lambda: self._store.publish(step, metrics=pending.metrics, facts=facts), step
            )

    def _published(self, pending: _Pending) -> None:
        """Rank 0: the checkpoint is on the shelf, or why not."""
        if pending.publishing is None:
            self._publish(pending)
        assert pending.publishing is not None
        pending.publishing.wait()
        if pending.publishing.error is not None:
            raise pending.publishing.error
