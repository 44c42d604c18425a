"""Between the doors and the pool: who is admitted, who waits, and whose program is no longer wanted.

Orders are taken and closed on the event loop's thread; programs run from threads, one for each of the pool's workers.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ...errors import WishError
from ..pool import Pool
from ..verdict import Verdict
from .asked import Case
from .metrics import Levels, Metrics
from .options import Options
from .refusal import Refusal
from .toolchains import Toolchains

_AHEAD = 4
"""Programs of one order handed over per worker: enough that none idles, few enough that others come in between."""


class Overdue(Exception):
    """The server's time to drain is over, and this order was not done."""


class Desk:
    """All programs on their way, and the bound on how many there may be."""

    def __init__(self, pool: Pool, options: Options) -> None:
        self.pool = pool
        self.places = options.places
        self.most = options.places + options.queue
        self.admitted = 0
        self.running = 0
        self.draining = False
        self.overdue = False
        self.orders: set[Order] = set()
        self.toolchains = Toolchains(pool)
        self._mean = 0.1
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(options.places, thread_name_prefix="desk")
        self.metrics = Metrics(
            Levels(lambda: self.admitted, lambda: self.running, options.places, options.queue, pool.level)
        )

    def check_room(self) -> None:
        """Raises Refusal where no program would be admitted now: asked before a body is read, and by `take`."""
        if self.draining:
            raise Refusal(503, "the server is shutting down", {"Retry-After": "5"})
        if self.admitted >= self.most:
            text = f"{self.admitted} programs run or wait already; ask again later"
            raise Refusal(429, text, {"Retry-After": str(self._retry_after())})

    def _retry_after(self) -> int:
        """Seconds until what waits now should be done."""
        return min(60, max(1, math.ceil(self.admitted * self._mean / self.places)))

    def take(self, cases: Sequence[Case]) -> Order:
        """Admit programs; a long order may overshoot the bound by itself, never two of them."""
        self.check_room()
        return Order(self, cases)

    def submit(self, case: Case) -> asyncio.Future[Verdict]:
        """Hand one program over; cancelling the future takes it back while it has not started."""
        work = self._threads.submit(self._run, case, time.monotonic())
        work.add_done_callback(self._count_abandoned)
        return asyncio.wrap_future(work)

    def _count_abandoned(self, work: Future[Verdict]) -> None:
        if work.cancelled():
            self.metrics.abandoned.inc()

    def _run(self, case: Case, since: float) -> Verdict:
        started = time.monotonic()
        self.metrics.wait_seconds.observe(started - since)
        with self._lock:
            self.running += 1
        try:
            verdict = self._judge(case)
        finally:
            with self._lock:
                self.running -= 1
                self._mean += (time.monotonic() - started - self._mean) / 32
        self.metrics.record(case.program.language, verdict)
        return verdict

    def _judge(self, case: Case) -> Verdict:
        """The program's verdict, or `infra` for what the sandbox cannot do here, such as a missing compiler."""
        problem = self.toolchains.problem(case.program.language)
        try:
            if not problem:
                return self.pool.run(case.program, case.limits)
        except WishError as error:
            problem = str(error)
        return Verdict("infra", problem, isolation=self.pool.level)

    def give_up(self) -> None:
        """Answer every order that is left: the time to drain is over."""
        self.overdue = True
        for order in list(self.orders):
            order.recall()

    def close(self) -> None:
        """End the threads; waits for programs that run."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class Order:
    """The programs of one request. Its end, by whatever way, takes back what has not started."""

    def __init__(self, desk: Desk, cases: Sequence[Case]) -> None:
        self.desk = desk
        self.cases = cases
        self.seats = len(cases)
        self.waiting: deque[asyncio.Future[Verdict]] = deque()
        self.current: asyncio.Future[Verdict] | None = None
        desk.admitted += self.seats
        desk.orders.add(self)

    async def all(self) -> list[Verdict]:
        """All verdicts at once."""
        return [verdict async for verdict in self.verdicts()]

    async def verdicts(self) -> AsyncIterator[Verdict]:
        """Verdicts in the order of the programs. Raises Overdue when the server stops before they are all there."""
        source = iter(self.cases)
        for case in itertools.islice(source, _AHEAD * self.desk.places):
            self.waiting.append(self.desk.submit(case))
        while self.waiting:
            self.current = self.waiting.popleft()
            verdict = await self._settled(self.current)
            for case in itertools.islice(source, 1):
                self.waiting.append(self.desk.submit(case))
            self.seats -= 1
            self.desk.admitted -= 1
            yield verdict

    async def _settled(self, future: asyncio.Future[Verdict]) -> Verdict:
        try:
            return await future
        except asyncio.CancelledError:
            if self.desk.overdue:
                raise Overdue from None
            raise

    def recall(self) -> None:
        """Take back what has not started, and wait no longer for what has."""
        for future in (*self.waiting, *([self.current] if self.current else [])):
            future.cancel()

    def __enter__(self) -> Order:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recall()
        self.desk.admitted -= self.seats
        self.seats = 0
        self.desk.orders.discard(self)
