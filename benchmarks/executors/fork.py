"""The floor for a process a program: fork, exec of the text, wait. No isolation, no captured output."""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from time import perf_counter

from .task import FAILED, PASSED, TIMED_OUT, Open, Outcome, Setting, Task, Unavailable

_IMPORTED = "typing math copy random string collections itertools functools re hashlib heapq bisect".split()
_INDEX = struct.Struct("<I")
_RECORD = struct.Struct("<Icd")


@contextmanager
def bare(setting: Setting) -> Iterator[Open]:
    """Worker processes that import what programs usually do, then fork once a program."""
    for name in (*_IMPORTED, *setting.packages):
        try:
            import_module(name)
        except ImportError as error:
            raise Unavailable(str(error)) from None

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        texts = [task.text() for task in tasks]
        queue = _queue(len(texts))
        results, theirs = os.pipe()
        workers = [_start(queue, theirs, texts, setting.limit_seconds) for _ in range(setting.workers)]
        os.close(theirs)
        outcomes = _collect(results, len(texts))
        for worker in workers:
            os.waitpid(worker, 0)
        os.close(queue)
        os.close(results)
        return outcomes

    yield Open(judge, shares=True)


def _queue(count: int) -> int:
    """Indices in a file whose offset the workers share, so that each takes the next when it is idle."""
    queue = os.memfd_create("queue")
    os.write(queue, b"".join(map(_INDEX.pack, range(count))))
    os.lseek(queue, 0, os.SEEK_SET)
    return queue


def _start(queue: int, results: int, texts: Sequence[str], limit: float) -> int:
    worker = os.fork()
    if worker:
        return worker
    try:
        while place := os.read(queue, _INDEX.size):
            (index,) = _INDEX.unpack(place)
            started = perf_counter()
            verdict = _run(texts[index], limit)
            os.write(results, _RECORD.pack(index, verdict.encode(), perf_counter() - started))
    finally:
        os._exit(0)


def _run(text: str, limit: float) -> str:
    program = os.fork()
    if not program:
        _be(text, limit)
    _, status = os.waitpid(program, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return TIMED_OUT
    return FAILED if status else PASSED


def _be(text: str, limit: float) -> None:
    """Become the program. Nobody handles the alarm, so it ends the process whatever the program does."""
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, limit)
        exec(text, {})
        code = 0
    except BaseException:
        pass
    finally:
        os._exit(code)


def _collect(results: int, count: int) -> list[Outcome]:
    """Read exactly as many records as there are programs; one that outlives its judge keeps the pipe open."""
    found: dict[int, Outcome] = {}
    rest = b""
    while len(found) < count:
        piece = os.read(results, 1 << 16)
        if not piece:
            sys.exit(f"the workers ended after {len(found)} of {count} programs")
        rest += piece
        whole = len(rest) - len(rest) % _RECORD.size
        for index, verdict, seconds in _RECORD.iter_unpack(rest[:whole]):
            found[index] = Outcome(verdict.decode(), seconds)
        rest = rest[whole:]
    return [found[index] for index in range(count)]
