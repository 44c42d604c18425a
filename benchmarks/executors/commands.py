"""Judges that start an interpreter by command for each program and go by its exit code."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from .task import FAILED, PASSED, TIMED_OUT, Open, Outcome, Setting, Task, Unavailable

_BWRAP = "bwrap --unshare-all --ro-bind / / --tmpfs /tmp --die-with-parent --new-session --clearenv".split()


@contextmanager
def python(setting: Setting) -> Iterator[Open]:
    """`python -I -S FILE`."""
    count = itertools.count()
    with tempfile.TemporaryDirectory() as folder:

        def command(task: Task) -> list[str]:
            file = Path(folder) / f"{next(count)}.py"
            file.write_text(task.text(), encoding="utf-8")
            return [*_interpreter(setting), str(file)]

        yield Open(_judge(command, setting))


@contextmanager
def bwrap(setting: Setting) -> Iterator[Open]:
    """`bwrap ... python -I -S -c TEXT`, with the mounts that are common for it."""
    start = [*_BWRAP, *_interpreter(setting), "-c"]
    try:
        trial = subprocess.run([*start, "pass"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        raise Unavailable("bwrap is not on the PATH") from None
    if trial.returncode:
        raise Unavailable(f"bwrap cannot start the interpreter: {trial.stderr.strip()}")
    yield Open(_judge(lambda task: [*start, task.text()], setting), note=version)


def _interpreter(setting: Setting) -> list[str]:
    """Without `site` where programs need nothing installed: what else is installed would slow each start."""
    base = str(getattr(sys, "_base_executable", sys.executable))
    return [sys.executable, "-I"] if setting.packages else [base, "-I", "-S"]


def _judge(
    command: Callable[[Task], list[str]], setting: Setting
) -> Callable[[Sequence[Task]], list[Outcome]]:
    def one(task: Task) -> Outcome:
        started = perf_counter()
        verdict = _run(command(task), setting.limit_seconds)
        return Outcome(verdict, perf_counter() - started)

    def judge(tasks: Sequence[Task]) -> list[Outcome]:
        with ThreadPoolExecutor(setting.workers) as threads:
            return list(threads.map(one, tasks))

    return judge


def _run(argv: list[str], limit: float) -> str:
    nowhere = subprocess.DEVNULL
    try:
        ended = subprocess.run(argv, stdin=nowhere, stdout=nowhere, stderr=nowhere, timeout=limit)
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    return FAILED if ended.returncode else PASSED
