"""A judge that sits for many trials: one forked process in a jail of its own, replaced when it is spent or stuck."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import signal
import socket
from dataclasses import replace

from . import codec
from .judge import JUDGE_LIMITS
from .keeper import Keeper
from .watch import Stopwatch, heir_of

_MOST_TRIALS = 1000
"""Forking a judge costs more than most trials; sitting for ever would let what tests leave behind pile up."""
_LIFETIME = replace(JUDGE_LIMITS, cpu_seconds=86_400.0, wall_seconds=86_400.0)
_serials = itertools.count(1)


class Sitting:
    """The judge's process as the worker sees it. A trial's test is the benchmark's, which is trusted not to lay traps
    for the next one; the program it judges is in another jail and reaches it only by plain data."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.serial = next(_serials)
        self.trials = 0
        self.cpu_seconds = JUDGE_LIMITS.cpu_seconds
        self.report: dict | None = None
        """How the judge's process ended, once it has."""
        self._clock: Stopwatch | None = None
        self._mark = 0.0
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            keeper.run(self.serial, "judge", _LIFETIME, [null, null, null, theirs.fileno()])
        except BaseException:
            self.link.close()
            raise
        finally:
            theirs.close()
            os.close(null)

    @property
    def left_clean(self) -> bool:
        """Whether its jail may seat another judge: what a test left there would be the next one's."""
        return self.report is not None and bool(self.report.get("clean"))

    @property
    def spent(self) -> bool:
        """Whether the next program should meet another judge."""
        return self.report is not None or self.trials >= _MOST_TRIALS

    def try_case(self, job: int, channel: int, cpu_seconds: float) -> None:
        """Open a trial: `job` holds the test, `channel` leads to the program, and the test may take so long."""
        self.trials += 1
        self.cpu_seconds = cpu_seconds
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [job, channel]).tobytes())]
        self.link.sendmsg([b"T"], rights)

    def busy(self) -> float:
        """Seconds the judge has been at work, or waited for a CPU, in this trial: time its program had to wait."""
        if self._clock is None:
            # In namespaces the judge is a child of the jail's first process, else of the zygote itself.
            judge = heir_of(self.keeper.process.pid, 1 if self.keeper.level == "process" else 2)
            if not judge:
                return 0.0
            self._clock = Stopwatch(judge)
        return self._clock.read() - self._mark

    def ruling(self) -> tuple[str, str] | None:
        """The verdict and its detail; None at the judge's end, of which its report tells more."""
        data = self.link.recv(1 << 16)
        if not data:
            return None
        self._mark += self.busy()
        verdict, detail = codec.decode(data)
        return verdict, detail

    def read_report(self) -> bool:
        """Hear from the judge's keeper; False when the jail itself has ended."""
        data = self.keeper.control.recv(1 << 16)
        if not data:
            return False
        self.report = json.loads(data)
        return True

    def fault(self) -> tuple[str, str] | None:
        """What the test did to its judge, when the judge ended by it; None when the sandbox is to blame."""
        report = self.report or {}
        status = report.get("status")
        over_time = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        if over_time or report.get("reason") == "cpu":
            return "cpu_limit", f"the test itself took over {self.cpu_seconds:g} CPU seconds"
        if report.get("reason") == "memory" or self.keeper.events().oom_kills:
            return "memory_limit", f"the test itself took over {JUDGE_LIMITS.memory_mb} MB"
        return None

    def end(self) -> None:
        """Have the process ended; its report follows."""
        self.keeper.end(self.serial)

    def close(self) -> None:
        """Let the judge go home, and wait until it has."""
        self.forget()
        with contextlib.suppress(OSError):
            if self.report is None:
                self.end()
                self.read_report()

    def forget(self) -> None:
        """Close what leads to it, without waiting: its jail is being closed, or is broken."""
        self.link.close()
        if self._clock:
            self._clock.close()
