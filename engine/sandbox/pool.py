"""The pool, the sandbox's door for many programs: workers that outlive programs and are gone when it closes."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from ..errors import WishError
from .case import Case
from .crew import Crew
from .foreign.runner import Foreign
from .outer import engines
from .process import Process
from .verdict import LEVELS, MODES, Limits, Program, Verdict
from .worker import Setup

_AHEAD = 64
"""Programs a worker that are taken on beyond the one whose verdict is waited for: none idles while that one is slow."""


_DEFAULT = Limits()


class Pool:
    """Workers that run programs, each in its own jail.

    Args:
        workers: how many programs run at a time.
        level: the weakest isolation that will do ("full", "user" or "process"); None takes the best there is.
        ceiling: the strongest isolation to try, for tests and for measuring what a weaker kernel would give.
        mode: "reused" runs programs one after another in a worker's jail, which is proven clean between them or
            built again; "fresh" gives each program namespaces, scratch and /proc of its own, at about twice the cost.
            Level process has no namespaces to give, so it is never fresh.
        engine: an outer engine ("runsc" or "podman") to run each program in, in a container of its own whatever the
            mode; the judge keeps its jail, of at least `level`. Python only, and slower by far.
        preload: modules of this environment imported once for all programs ("numpy"); their packages can be read.

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
    ) -> None:
        if workers < 1:
            raise WishError(f"a sandbox of {workers} workers runs nothing", "ask for at least 1")
        if mode not in MODES:
            raise WishError(f"there is no sandbox mode {mode!r}", f"use one of {', '.join(MODES)}")
        self.mode = mode
        levels = _levels_between(level, ceiling, mode)
        setup = Setup(
            mode == "fresh", preload, packages_of(preload), engine, engines.find(engine) if engine else ""
        )
        self._processes: list[Process] = []
        try:
            for _ in range(workers):
                self._processes.append(Process(levels, setup, _DEFAULT.disk_mb))
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

    def run(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """One program's verdict; may be called from several threads."""
        return self.submit(program, limits).result()

    def submit(self, program: Program, limits: Limits = _DEFAULT) -> Future[Verdict]:
        """The verdict to come; cancelling it takes the program back while it waits. From any thread."""
        if program.language != "python":
            return self._threads.submit(self._foreign.run, program, limits)
        return self._crew.submit(Case.of(program, limits))

    def run_many(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> Iterator[Verdict]:
        """Verdicts in input order. Reads a few programs ahead of the verdict it waits for, never all of them."""
        waiting: deque[Future[Verdict]] = deque()
        window = _AHEAD * len(self._processes)
        source = iter(programs)
        try:
            for program in itertools.islice(source, window):
                waiting.append(self.submit(program, limits))
            while waiting:
                verdict = waiting.popleft().result()
                for program in itertools.islice(source, 1):
                    waiting.append(self.submit(program, limits))
                yield verdict
        finally:
            for future in waiting:
                future.cancel()

    async def run_async(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """As `run`, for callers on an event loop."""
        return await asyncio.wrap_future(self.submit(program, limits))

    async def stream(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> AsyncIterator[Verdict]:
        """As `run_many`, for callers on an event loop."""
        waiting: deque[asyncio.Future[Verdict]] = deque()
        source = iter(programs)
        try:
            while True:
                for program in itertools.islice(source, _AHEAD * len(self._processes) - len(waiting)):
                    waiting.append(asyncio.wrap_future(self.submit(program, limits)))
                if not waiting:
                    return
                yield await waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

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

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packages_of(modules: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that hold the named modules, the standard library's aside."""
    folders = []
    for name in modules:
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None:
            raise WishError(f"there is no module {name!r} to preload", "install it in this environment")
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
