"""The pool, the sandbox's door for many programs: workers that outlive programs and are gone when it closes."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

from ..errors import WishError
from .case import Case
from .crew import Crew
from .foreign.runner import Foreign
from .outer import engines
from .process import Process
from .verdict import LEVELS, MODES, Limits, Program, Verdict
from .wishes import check_program
from .worker import Setup

_AHEAD = 1000
"""Most programs a worker whose verdicts are out while an earlier one's is waited for: a slow one idles nobody."""
_AHEAD_BYTES = 64 << 20
"""No more are taken on while those, and the verdicts that are there, have so many bytes."""
_BACKLOG = 8
"""Programs a worker that wait for it: enough that none idles. The next ones are left where they come from."""
_GLANCE_SECONDS = 0.01
_TURN = "\0temper-sandbox-pool-{}"
_MOST_TURNS = 10_000

_DEFAULT = Limits()

Trial = tuple[Program, Callable[[], Future[Verdict]]]
"""A program, and what submits it and gives the verdict to come."""


class Pool:
    """Workers that run programs, each in its own jail.

    Args:
        workers: how many programs run at a time.
        level: the weakest isolation that will do ("full", "user" or "process"); None takes the best there is.
        ceiling: the strongest isolation to try, for tests and for measuring what a weaker kernel would give.
        mode: "reused" runs programs one after another in a worker's jail, which is proven clean between them or
            built again; "fresh" gives each program namespaces, scratch and /proc of its own, and costs more time.
            Level process has no namespaces to give, so it is never fresh.
        engine: an outer engine ("runsc" or "podman") to run each program in, in a container of its own whatever the
            mode; the judge keeps its jail, of at least `level`. Python only, and slower by far.
        preload: modules of this environment imported once for all programs ("numpy"); their packages can be read.
        packages: modules that programs may import themselves: those that cannot be preloaded, or that few need.

    Raises:
        WishError: this kernel cannot give `level`, or gives no isolation at all; `engine` is not installed or does not
            work here; or a module cannot be preloaded.
    """

    def __init__(
        self,
        workers: int = 2,
        level: str | None = None,
        *,
        ceiling: str | None = None,
        mode: str = "reused",
        preload: tuple[str, ...] = (),
        engine: str | None = None,
        packages: tuple[str, ...] = (),
    ) -> None:
        if workers < 1:
            raise WishError(f"a sandbox of {workers} workers runs nothing", "ask for at least 1")
        if mode not in MODES:
            raise WishError(f"there is no sandbox mode {mode!r}", f"use one of {', '.join(MODES)}")
        self.mode = mode
        levels = _levels_between(level, ceiling, mode)
        shown = packages_of((*preload, *packages))
        setup = Setup(mode == "fresh", preload, shown, engine, engines.find(engine) if engine else "")
        self._processes: list[Process] = []
        self._turns = _take_turns(workers)
        try:
            for place in self._turns:
                self._processes.append(Process(levels, setup, _DEFAULT.disk_mb, place))
            for process in self._processes:
                process.wait_until_open()
        except BaseException:
            self._close_processes()
            raise
        self.level = self._processes[0].level
        self.problems = self._processes[0].problems
        """Why stronger levels were not to be had, by level."""
        self.eager_pages = self._processes[0].eager_pages
        """Pages each program is given at its fork (see `eager`); 0 where this kernel does not grant it: slower."""
        self._crew = Crew(self._processes)
        self._foreign = Foreign(self.level, lambda case: self._crew.submit(case).result())
        # a program that is compiled and then run is two cases in turn, so it takes a thread to wait in
        self._threads = ThreadPoolExecutor(2 * workers, thread_name_prefix="sandbox-foreign")
        self._abroad: set[Future[Verdict]] = set()

    @property
    def workers(self) -> int:
        """How many programs run at a time."""
        return len(self._processes)

    @property
    def backlog(self) -> int:
        """How many programs wait for a worker, or for a thread to wait in."""
        return self._crew.backlog + max(0, len(self._abroad) - 2 * self.workers)

    def run(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """One program's verdict; may be called from several threads."""
        return self.submit(program, limits).result()

    def submit(self, program: Program, limits: Limits = _DEFAULT) -> Future[Verdict]:
        """The verdict to come; cancelling it takes the program back while it waits. From any thread.

        As executors do, this takes on whatever it is given; `run_many` and `stream` hold back what is not yet due.
        """
        if isinstance(program, Program) and program.language != "python":
            check_program(program)
            future = self._threads.submit(self._foreign.run, program, limits)
            self._abroad.add(future)
            future.add_done_callback(self._abroad.discard)
            return future
        return self._crew.submit(Case.of(program, limits))

    def run_many(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> Iterator[Verdict]:
        """Verdicts in input order. Reads ahead of the verdict it waits for no more than keeps the workers busy."""
        return self.in_order((program, partial(self.submit, program, limits)) for program in programs)

    def in_order(self, trials: Iterable[Trial]) -> Iterator[Verdict]:
        """As `run_many`, for trials that may take several runs in turn: each a program and what begins it."""
        ahead = _Ahead(self, iter(trials))
        try:
            while ahead.fill():
                try:
                    verdict = ahead.first.result(_GLANCE_SECONDS)
                except TimeoutError:
                    continue
                ahead.done()
                yield verdict
        finally:
            ahead.cancel()

    async def run_async(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """As `run`, for callers on an event loop."""
        return await asyncio.wrap_future(self.submit(program, limits))

    async def stream(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> AsyncIterator[Verdict]:
        """As `run_many`, for callers on an event loop."""
        ahead = _Ahead(self, ((program, partial(self.submit, program, limits)) for program in programs))
        try:
            while ahead.fill():
                first = asyncio.wrap_future(ahead.first)
                while not (await asyncio.wait({first}, timeout=_GLANCE_SECONDS))[0]:
                    ahead.fill()
                ahead.done()
                yield first.result()
        finally:
            ahead.cancel()

    def close(self) -> None:
        """End all workers with all they run; nothing of them is left when this returns."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._crew.close()
        self._close_processes()

    def _close_processes(self) -> None:
        for process in self._processes:
            process.hang_up()
        for process in self._processes:
            process.close()
        for holder in self._turns.values():
            holder.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Ahead:
    """Programs on their way whose verdicts are to come in order, bounded in number and in bytes."""

    def __init__(self, pool: Pool, source: Iterator[Trial]) -> None:
        self.pool, self.source = pool, source
        self.waiting: deque[tuple[Future[Verdict], int]] = deque()
        self.size = 0
        self.answered = 0
        """Bytes of verdicts that are there and not taken."""
        self._weighing = threading.Lock()

    @property
    def first(self) -> Future[Verdict]:
        """The one whose verdict is next."""
        return self.waiting[0][0]

    def fill(self) -> bool:
        """Take on as many programs as there is room for; False when no verdict is to come any more."""
        while self._has_room():
            trial = next(self.source, None)
            if trial is None:
                break
            program, begin = trial
            future = begin()
            size = len(program.source) + len(program.test or "") + len(program.context) + len(program.stdin)
            size += sum(len(file.data) for file in program.files)
            self.waiting.append((future, size))
            self.size += size
            future.add_done_callback(self._weigh)
        return bool(self.waiting)

    def _has_room(self) -> bool:
        workers = self.pool.workers
        if not self.waiting:
            return True
        full = len(self.waiting) >= _AHEAD * workers or self.size + self.answered >= _AHEAD_BYTES
        return not full and self.pool.backlog < _BACKLOG * workers

    def _weigh(self, future: Future[Verdict], sign: int = 1) -> None:
        """Add a verdict that has come, in the thread that brings it, or take off one that was taken."""
        if future.cancelled() or future.exception():
            return
        verdict = future.result()
        size = len(verdict.stdout) + len(verdict.stderr) + sum(len(file.data) for file in verdict.files)
        with self._weighing:
            self.answered += sign * size

    def done(self) -> None:
        """The first one's verdict was taken."""
        future, size = self.waiting.popleft()
        self.size -= size
        self._weigh(future, -1)

    def cancel(self) -> None:
        """Take back what has not begun."""
        for future, _ in self.waiting:
            future.cancel()


def _take_turns(workers: int) -> dict[int, socket.socket]:
    """Numbers in a row that no open pool of this machine has, and what holds each.

    A worker takes the CPU of its number, counted round: those of a pool share none while there are others, and
    pools beside each other go on where the one before ended. Abstract sockets hold the numbers, which the kernel lets
    go with their process.
    """
    turns: dict[int, socket.socket] = {}
    for number in range(_MOST_TURNS):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(_TURN.format(number))
            turns[number] = holder
        except OSError:  # somebody has it: begin anew behind it
            for taken in (holder, *turns.values()):
                taken.close()
            turns = {}
        if len(turns) == workers:
            return turns
    return dict(enumerate(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(workers)))


def packages_of(modules: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that hold the named modules, the standard library's aside."""
    folders = []
    for name in modules:
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None:
            raise WishError(f"there is no module {name!r} here", "install it in this environment")
        if spec.origin in (None, "built-in", "frozen") or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        place = Path(spec.origin or "")
        folders.append(str(place.parent.parent if place.name == "__init__.py" else place.parent))
    return tuple(dict.fromkeys(folders))


def _levels_between(weakest: str | None, strongest: str | None, mode: str) -> list[str]:
    for name in (weakest, strongest):
        if name is not None and name not in LEVELS:
            raise WishError(f"there is no isolation level {name!r}", f"use one of {', '.join(LEVELS)}")
    first = LEVELS.index(strongest) if strongest else 0
    last = LEVELS.index(weakest) if weakest else len(LEVELS) - 1
    levels = [name for name in LEVELS[first : last + 1] if name != "process" or mode != "fresh"]
    if not levels:
        raise WishError(
            "level process has no namespaces to make fresh for each program", "use mode reused, or level user"
        )
    return levels
