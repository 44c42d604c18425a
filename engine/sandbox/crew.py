"""The crew: a queue of programs and a thread a worker process, which hands it one program more than it runs.

So a worker never waits for the next program while the verdict of the last one is on its way. A program that waits
behind a slow one while another worker idles is run there as well, and the first verdict counts.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..errors import WishError
from .case import Case, unpack_verdict
from .judge import judging_seconds
from .process import Process, WorkerDied
from .verdict import MOST_WALL, Verdict
from .wire import numbered, read_number

_GRACE_SECONDS = 60.0
_BEHIND_SECONDS = 0.05
"""How long a program may wait behind another one while a worker idles."""
_TRIES = 2


@dataclass(eq=False, slots=True)
class _Job:
    """One program on its way."""

    number: int
    request: bytes
    patience: float
    """Seconds after which its worker is taken to be stuck."""
    future: Future[Verdict]
    tries: int = 0
    handed_at: float = 0.0
    shared: bool = False
    """A second worker runs it too."""


@dataclass(eq=False, slots=True)
class _Hand:
    """One worker process, and what it holds: the program it runs, and the one after it."""

    process: Process
    held: deque[_Job] = field(default_factory=deque)


class Crew:
    """Worker processes that share a queue."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self.level = processes[0].level
        self._numbers = itertools.count()
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False
        self._hands = [_Hand(process) for process in processes]
        self._threads = [
            threading.Thread(target=self._attend, args=(hand,), name="sandbox", daemon=True)
            for hand in self._hands
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, case: Case) -> Future[Verdict]:
        """Queue a program; cancelling the future takes it back while it waits."""
        patience = 2 * MOST_WALL * case.limits.wall_seconds + judging_seconds(case.limits) + _GRACE_SECONDS
        job = _Job(next(self._numbers), case.pack(), patience, Future())
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._waiting.append(job)
            if self._idle:
                self._changed.notify()
        return job.future

    @property
    def backlog(self) -> int:
        """How many programs no worker has been handed yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Cancel what waits, let what runs come to its end, and end the threads."""
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _attend(self, hand: _Hand) -> None:
        """Keep one worker busy until the crew is closed."""
        while self._top_up(hand):
            try:
                self._hear(hand)
            except WorkerDied as error:
                self._replace(hand, str(error))

    def _top_up(self, hand: _Hand) -> bool:
        """Hand over programs until the worker has one ahead; False when there is nothing more to come."""
        while len(hand.held) < 2:
            job = self._take(hand)
            if job is None:
                break
            hand.held.append(job)
            hand.process.post(b"P", numbered(job.number, job.request))
        return bool(hand.held)

    def _take(self, hand: _Hand) -> _Job | None:
        """The next program; a worker with nothing to do waits for it, one that has something takes what is there."""
        with self._changed:
            while True:
                if hand.held and self._idle:
                    return None  # let those have it who have nothing
                while self._waiting:
                    job = self._waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        job.handed_at = time.monotonic()
                        return job
                if hand.held or self._closed:
                    return None
                late = self._behind()
                if late and time.monotonic() - late.handed_at >= _BEHIND_SECONDS:
                    late.shared = True
                    return late
                self._idle += 1
                self._changed.wait(_BEHIND_SECONDS if late else None)
                self._idle -= 1

    def _behind(self) -> _Job | None:
        """The program that has waited longest behind another one."""
        behind = [hand.held[1] for hand in self._hands if len(hand.held) == 2 and not hand.held[1].shared]
        return min(behind, key=lambda job: job.handed_at, default=None)

    def _hear(self, hand: _Hand) -> None:
        """Wait for the worker's next word. Raises WorkerDied."""
        for frame in hand.process.receive(time.monotonic() + hand.held[0].patience):
            number, body = read_number(frame.body)
            with self._changed:
                job = next((job for job in hand.held if job.number == number), None)
                if job is None:
                    raise WorkerDied("it answered what it was not asked")
                hand.held.remove(job)
            if frame.kind == b"V":
                self._finish(job, unpack_verdict(body))
                self._drop_elsewhere(job)

    def _finish(self, job: _Job, verdict: Verdict) -> None:
        """Of two who run the same program the first one is heard."""
        with contextlib.suppress(Exception):
            if not job.future.done():
                job.future.set_result(verdict)

    def _drop_elsewhere(self, job: _Job) -> None:
        """Another worker may still have this program before it."""
        if job.shared:
            with self._changed:
                others = [hand for hand in self._hands if job in hand.held]
            for hand in others:
                hand.process.post(b"D", numbered(job.number))

    def _replace(self, hand: _Hand, trouble: str) -> None:
        """Start the worker again, with what the dead one held; a program that met two deaths is given up."""
        with self._changed:
            lost = [job for job in hand.held if not job.future.done()]
            hand.held.clear()
        if lost:
            lost[0].tries += 1
            if lost[0].tries >= _TRIES:
                job = lost.pop(0)
                self._finish(job, Verdict("infra", f"the worker died twice: {trouble}", isolation=self.level))
        try:
            hand.process.restart()
        except WishError as error:
            for job in lost:
                words = f"a worker could not be started again: {error}"
                self._finish(job, Verdict("infra", words, isolation=self.level))
            return
        for job in lost:
            with self._changed:
                hand.held.append(job)
                self._changed.notify_all()  # an idle worker may take what waits behind
            hand.process.post(b"P", numbered(job.number, job.request))
