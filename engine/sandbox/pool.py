"""The pool: worker processes that outlive programs, fed in order, replaced when they die, gone when it closes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import queue
import select
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from ..errors import WishError
from . import codec, wire
from .case import Case, unpack_verdict
from .foreign import Foreign
from .judge import JUDGE_LIMITS
from .keeper import start_interpreter
from .verdict import LEVELS, MODES, MOST_WALL, Limits, Program, Verdict
from .worker import Setup

_TRUSTED_BYTES = 256 << 20
_START_SECONDS = 120.0
_GRACE_SECONDS = 60.0
_AHEAD = 8
"""Programs handed out per worker beyond the one whose verdict is waited for: enough that none idles."""


_DEFAULT = Limits()


class WorkerDied(Exception):
    """The worker process ended or stopped answering."""


class Pool:
    """Workers that run programs, each in its own jail.

    Args:
        workers: how many programs run at a time.
        level: the weakest isolation that will do ("full", "user" or "process"); None takes the best there is.
        ceiling: the strongest isolation to try, for tests and for measuring what a weaker kernel would give.
        mode: "reused" runs programs one after another in a worker's jail, which is proven clean between them or
            built again; "fresh" gives each program namespaces, scratch and /proc of its own, at about twice the cost.
            Level process has no namespaces to give, so it is never fresh.
        preload: modules of this environment imported once for all programs ("numpy"); their packages can be read.

    Raises:
        WishError: this kernel cannot give `level`, or gives no isolation at all; or a module cannot be preloaded.
    """

    def __init__(
        self,
        workers: int = 2,
        level: str | None = None,
        *,
        ceiling: str | None = None,
        mode: str = "reused",
        preload: tuple[str, ...] = (),
    ) -> None:
        if workers < 1:
            raise WishError(f"a sandbox of {workers} workers runs nothing", "ask for at least 1")
        if mode not in MODES:
            raise WishError(f"there is no sandbox mode {mode!r}", f"use one of {', '.join(MODES)}")
        self.mode = mode
        levels = _levels_between(level, ceiling, mode)
        setup = Setup(mode == "fresh", preload, packages_of(preload))
        self._workers = [_Worker(levels, setup) for _ in range(workers)]
        try:
            for worker in self._workers:
                worker.wait_until_open()
        except BaseException:
            self._close_workers()
            raise
        self.level = self._workers[0].level
        self.problems = self._workers[0].problems
        """Why stronger levels were not to be had, by level."""
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._foreign = Foreign(self.level, self._run_case)

    def run(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """One program's verdict; may be called from several threads."""
        return self._threads.submit(self._run, program, limits).result()

    def run_many(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> Iterator[Verdict]:
        """Verdicts in input order. Reads a few programs ahead of the verdict it waits for, never all of them."""
        waiting: deque[Future[Verdict]] = deque()
        window = _AHEAD * len(self._workers)
        source = iter(programs)
        try:
            for program in itertools.islice(source, window):
                waiting.append(self._threads.submit(self._run, program, limits))
            while waiting:
                verdict = waiting.popleft().result()
                for program in itertools.islice(source, 1):
                    waiting.append(self._threads.submit(self._run, program, limits))
                yield verdict
        finally:
            for future in waiting:
                future.cancel()

    async def run_async(self, program: Program, limits: Limits = _DEFAULT) -> Verdict:
        """As `run`, for callers on an event loop."""
        return await asyncio.wrap_future(self._threads.submit(self._run, program, limits))

    async def stream(self, programs: Iterable[Program], limits: Limits = _DEFAULT) -> AsyncIterator[Verdict]:
        """As `run_many`, for callers on an event loop."""
        waiting: deque[asyncio.Future[Verdict]] = deque()
        source = iter(programs)
        try:
            while True:
                for program in itertools.islice(source, _AHEAD * len(self._workers) - len(waiting)):
                    waiting.append(asyncio.wrap_future(self._threads.submit(self._run, program, limits)))
                if not waiting:
                    return
                yield await waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    def _run(self, program: Program, limits: Limits) -> Verdict:
        if program.language != "python":
            return self._foreign.run(program, limits)
        return self._run_case(Case.of(program, limits))

    def _run_case(self, case: Case) -> Verdict:
        """Run on any idle worker. One that dies is replaced and the program runs once more."""
        request = case.pack()
        patience = 2 * MOST_WALL * case.limits.wall_seconds + JUDGE_LIMITS.cpu_seconds + _GRACE_SECONDS
        worker = self._idle.get()
        try:
            try:
                return worker.run(request, patience)
            except WorkerDied:
                worker.restart()
            try:
                return worker.run(request, patience)
            except WorkerDied as error:
                worker.restart()
                return Verdict("infra", f"the worker died twice: {error}", isolation=self.level)
        except WishError as error:
            return Verdict("infra", f"a worker could not be started again: {error}", isolation=self.level)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers with all they run; nothing of them is left when this returns."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._close_workers()

    def _close_workers(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.close()

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


class _Worker:
    """A worker process as the pool sees it. Started by exec, so it carries nothing of this process's memory."""

    def __init__(self, levels: list[str], setup: Setup) -> None:
        self.levels = levels
        self.setup = setup
        self.level = ""
        self.problems: dict[str, str] = {}
        self._start()

    def _start(self, *, after: int | None = None) -> None:
        """`after`: the worker this one replaces, whose leavings it clears first."""
        self.link, theirs = socket.socketpair()
        with theirs:
            self.process = start_interpreter("worker", theirs.fileno())
        hello = codec.encode(
            {
                "levels": self.levels,
                "disk_mb": _DEFAULT.disk_mb,
                "after": after,
                "setup": asdict(self.setup),
            }
        )
        wire.send(self.link.fileno(), b"O", hello)

    def wait_until_open(self) -> None:
        try:
            answer = codec.decode(self._receive(_START_SECONDS))
        except WorkerDied as error:
            raise WishError(
                f"a sandbox worker ended while it started ({error})", "see the kernel's log"
            ) from None
        self.level, self.problems = answer["level"], answer["problems"]
        if not self.level:
            reasons = "; ".join(f"{level}: {why}" for level, why in self.problems.items())
            raise WishError(
                f"this machine cannot isolate programs at level {' or '.join(self.levels)} ({reasons})",
                "ask for a weaker level, or let an administrator allow user namespaces (sysctl "
                "user.max_user_namespaces above 0; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a "
                "container a seccomp profile that allows unshare and mount); level full also needs a writable "
                "cgroup with memory and pids",
            )
        # a worker that is replaced later must be as strong as the one its pool was opened with
        self.levels = [self.level]

    def run(self, request: bytes, patience: float) -> Verdict:
        try:
            wire.send(self.link.fileno(), b"P", request)
        except OSError as error:
            raise WorkerDied(str(error)) from None
        return unpack_verdict(self._receive(patience))

    def _receive(self, patience: float) -> bytes:
        ready = select.poll()
        ready.register(self.link, select.POLLIN)
        if not ready.poll(patience * 1000):
            raise WorkerDied(f"no answer within {patience:g} s")
        try:
            frame = wire.Inbox(_TRUSTED_BYTES).wait(self.link.fileno())
        except OSError as error:
            raise WorkerDied(str(error)) from None
        if frame is None:
            raise WorkerDied("it closed its end")
        return frame.body

    def restart(self) -> None:
        self.process.kill()
        self.close()
        self._start(after=self.process.pid)
        self.wait_until_open()

    def hang_up(self) -> None:
        """The worker ends itself, and all it keeps, when its supervisor's end closes."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self.link.close()
        if self.process.stdout:
            self.process.stdout.close()
        self.process.wait()
