"""One program from order to verdict, inside the worker: an event loop over pipes that nobody is ever waited on.

A verdict's causes, strongest first: a broken sandbox, too much output, memory, processes, CPU time, wall time, then
what the judge or the comparison found, then how the process ended.
"""

from __future__ import annotations

import itertools
import json
import marshal
import math
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field, replace

from . import codec, wire
from .case import Case
from .cgroup import Events
from .judge import read_failure
from .keeper import Keeper
from .verdict import MOST_WALL, OUTPUT_CAP_FACTOR, Failure, Limits, Verdict, one_line

JUDGE_LIMITS = Limits(cpu_seconds=10.0, memory_mb=1024, processes=16, disk_mb=8)
_GRACE_SECONDS = 20.0
_LAST_WORDS_SECONDS = 3.0
"""How long a judge may go on after its program has ended."""
_READ = 1 << 16
_SHOWN_VALUE = 600
_serials = itertools.count(1)


class Broken(Exception):
    """The sandbox, not the program, failed."""


@dataclass(slots=True)
class Output:
    """One stream's kept part: the first bytes of stdout, the last of stderr (where the traceback is)."""

    room: int
    keep_last: bool
    kept: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        if self.keep_last:
            self.kept += data
            del self.kept[: max(0, len(self.kept) - self.room)]
        else:
            self.kept += data[: max(0, self.room - len(self.kept))]

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


class Session:
    """Run one program under its keepers; `spent` names those that must be built again afterwards."""

    def __init__(self, case: Case, solution: Keeper, judge: Keeper | None, link: socket.socket) -> None:
        self.case, self.limits = case, case.limits
        self.solution, self.judge, self.link = solution, judge, link
        self.serial = next(_serials)
        self.settled: tuple[str, str] | None = None
        self.failure: Failure | None = None
        self.ended: object = None
        """The exit code a script told before it left; a script that told none did not come to its end."""
        self.gone = False
        """The judge found the program's process gone; how it ended tells the verdict."""
        self.last_words = math.inf
        self.answered = 0
        self.printed = 0
        self.inbox = wire.Inbox()
        self.spent: list[str] = []
        self.reports: dict[str, dict] = {}
        self.streams: dict[int, Output] = {}
        self.poll = select.poll()

    def run(self) -> Verdict:
        self.deadline = time.monotonic() + self.limits.wall_seconds * MOST_WALL + _GRACE_SECONDS
        self._start()
        try:
            while not self._finished():
                self._step()
            for fd in list(self.streams):
                self._drain(fd)
            return self._verdict()
        finally:
            for fd in (*self.streams, self.events):
                os.close(fd)

    def _start(self) -> None:
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        room = self.limits.output_kb * 1024
        self.streams = {out: Output(room, keep_last=False), err: Output(room, keep_last=True)}
        near, far = (s.detach() for s in socket.socketpair())
        job = {"form": self.case.form, "source": self.case.source, "calls": self.case.expressions}
        stdin = _as_file(self.case.stdin) if self.case.stdin else os.open(os.devnull, os.O_RDONLY)
        self._order(self.solution, "solution", self.limits, [stdin, child_out, child_err, far, _as_job(job)])
        if self.judge:
            near = self._start_judge(self.judge, near)
        self.events = near
        for fd in (*self.streams, self.events):
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)
        for keeper in (self.solution, self.judge):
            if keeper:
                self.poll.register(keeper.control, select.POLLIN)
        self.poll.register(self.link, select.POLLIN)

    def _start_judge(self, judge: Keeper, channel: int) -> int:
        """Hand the judge its end of the channel to the program; the descriptor its ruling will come from."""
        case = self.case
        job = {"test": case.test, "entry_point": case.entry_point, "context": case.context}
        near, far = (s.detach() for s in socket.socketpair())
        null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
        limits = replace(JUDGE_LIMITS, wall_seconds=self.limits.wall_seconds + _GRACE_SECONDS / 2)
        self._order(judge, "judge", limits, [*null, channel, _as_job(job), far])
        return near

    def _order(self, keeper: Keeper, role: str, limits: Limits, fds: list[int]) -> None:
        try:
            keeper.run(self.serial, role, limits, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _finished(self) -> bool:
        return "solution" in self.reports and (self.judge is None or "judge" in self.reports)

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self.deadline:
            raise Broken("the jail does not answer")
        if self.judge and now >= self.last_words:
            self.judge.end(self.serial)
            self.last_words = math.inf
        for fd, _ in self.poll.poll((min(self.deadline, self.last_words) - now) * 1000 + 1):
            if fd in self.streams:
                self._drain(fd)
            elif fd == self.events:
                self._read_events()
            elif fd == self.link.fileno():
                raise SystemExit  # the supervisor is gone; nobody wants the verdict
            elif fd == self.solution.control.fileno():
                self._read_report(self.solution, "solution")
            elif self.judge:
                self._read_report(self.judge, "judge")

    def _drain(self, fd: int) -> None:
        for _ in range(64):  # then let the other descriptors have their turn
            try:
                data = os.read(fd, _READ)
            except BlockingIOError:
                return
            if not data:
                self._forget(fd)
                return
            self.streams[fd].add(data)
            self.printed += len(data)
            cap = self.limits.output_kb * 1024 * OUTPUT_CAP_FACTOR
            if self.printed > cap:
                self._settle("output_limit", f"printed more than {cap >> 10} kB")
                return

    def _forget(self, fd: int) -> None:
        try:
            self.poll.unregister(fd)
        except KeyError:
            return  # forgotten already, on an earlier end of stream

    def _read_events(self) -> bool:
        """Hear what has come on the event channel; whether there may be more."""
        try:
            data = os.read(self.events, 1 << 20)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._forget(self.events)
            return False
        try:
            for frame in self.inbox.feed(data):
                if not self.settled:
                    self._hear(frame)
        except codec.Malformed as error:
            self._settle("wrong", f"the program broke the protocol: {error}")
        return True

    def _read_report(self, keeper: Keeper, role: str) -> None:
        data = keeper.control.recv(1 << 16)
        if not data:
            self._lost(keeper, role)
            return
        report = json.loads(data)
        if report["serial"] != self.serial:
            raise Broken("a report of another program")
        if report["trouble"]:
            raise Broken(report["trouble"])
        self.reports[role] = report
        if not report["clean"]:
            self.spent.append(role)
        while self._read_events():
            pass
        if role == "solution" and self.judge and not self.settled:
            # The judge may not have read the program's last words yet (the error it ended with), so it may finish
            # hearing them; the end of its channel follows. What else the test had to do, it has no candidate for.
            self.gone = True
            self.last_words = time.monotonic() + _LAST_WORDS_SECONDS
        if role == "judge" and not self.settled and not self.gone:
            self._judge_failed(keeper, report)

    def _lost(self, keeper: Keeper, role: str) -> None:
        """A jail's first process ended: the kernel may have picked it when its group ran out of memory."""
        if not keeper.events().oom_kills:
            raise Broken(f"the jail of the {role} ended by itself")
        self.spent.append(role)
        self._settle("memory_limit", f"more than {self.limits.memory_mb} MB")
        self.poll.unregister(keeper.control)
        self.reports[role] = {
            "status": None,
            "reason": "memory",
            "crowded": False,
            "cpu": 0.0,
            "wall": 0.0,
            "peak_kb": 0,
        }

    def _judge_failed(self, keeper: Keeper, report: dict) -> None:
        if report["reason"] == "cpu":
            self._settle("cpu_limit", f"the test itself took over {JUDGE_LIMITS.cpu_seconds:g} CPU seconds")
        elif report["reason"] == "memory" or keeper.events().oom_kills:
            self._settle("memory_limit", f"the test itself took over {JUDGE_LIMITS.memory_mb} MB")
        elif report["reason"] != "wall":
            raise Broken(f"the judge ended without a ruling (status {report['status']})")

    def _hear(self, frame: wire.Frame) -> None:
        if self.judge:
            self._hear_ruling(frame)
        elif frame.kind == b"X":
            self.failure = read_failure(frame.body)
            if self.case.expressions and self.failure:
                self._settle(self.failure.verdict(), self._named(self.failure.describe()))
        elif self.case.expressions:
            self._compare(frame)
        elif frame.kind == b"E" and len(frame.body) < 64:
            self.ended = codec.decode(frame.body)

    def _hear_ruling(self, frame: wire.Frame) -> None:
        verdict, detail = codec.decode(frame.body)
        if verdict == "gone":
            self.gone = True
            self.solution.end(self.serial)
        else:
            self._settle(verdict, detail)

    def _compare(self, frame: wire.Frame) -> None:
        text = frame.body[:200].decode("utf-8", "replace")
        if frame.kind == b"O":
            self._settle("wrong", self._named(f"not plain data: {text}"))
        elif frame.kind == b"L":
            self._settle("output_limit", self._named(text))
        elif frame.kind != b"V":
            self._settle("wrong", "the program broke the protocol: an unknown answer")
        else:
            self._compare_value(frame.body)

    def _compare_value(self, got: bytes) -> None:
        expected = self.case.expected[self.answered]
        if not codec.same(expected, got):
            self._settle("wrong", self._named(f"gave {_shown(got)}, expected {_shown(expected)}"))
            return
        self.answered += 1
        if self.answered == len(self.case.expressions):
            self._settle("passed", "")

    def _named(self, text: str) -> str:
        """`text` with the call it is about, when the program had got as far as calls."""
        if self.failure and self.failure.stage != "call":
            return text
        return one_line(f"{one_line(self.case.expressions[self.answered], 120)}: {text}")

    def _settle(self, verdict: str, detail: str) -> None:
        """The verdict is known (the first one stays): the program may go."""
        self.settled = self.settled or (verdict, detail)
        self.solution.end(self.serial)
        if self.judge:
            self.judge.end(self.serial)

    def _verdict(self) -> Verdict:
        report = self.reports["solution"]
        # Read whatever the verdict is: what is left in the counters would be held against the next program.
        events = self.solution.events()
        if self.judge:
            self.judge.events()
        name, detail = self._cause(report, events)
        status, killed_here = report["status"], bool(report["reason"])
        code = sig = None
        if status is not None and not killed_here:
            code = os.waitstatus_to_exitcode(status)
            code, sig = (None, -code) if code < 0 else (code, None)
        stdout, stderr = self.streams.values()
        return Verdict(
            name,
            one_line(detail),
            exit_code=code,
            signal=sig,
            cpu_seconds=report["cpu"],
            wall_seconds=report["wall"],
            peak_memory_mb=report["peak_kb"] / 1024,
            stdout=stdout.text(),
            stderr=stderr.text(),
            isolation=self.solution.level,
        )

    def _cause(self, report: dict, events: Events) -> tuple[str, str]:
        limits, reason = self.limits, report["reason"]
        settled = self.settled or self._own_end(report)
        if settled[0] in ("output_limit", "infra"):
            return settled
        if settled[0] != "passed":
            if events.oom_kills or reason == "memory":
                return "memory_limit", f"more than {limits.memory_mb} MB"
            if events.refused_forks or report["crowded"] or reason == "processes":
                return "process_limit", f"more than {limits.processes} processes and threads"
            if self.failure and not self.settled:
                return settled  # a script's own error came before whatever kept it from leaving
        if reason == "cpu" or report["cpu"] > limits.cpu_seconds:
            return "cpu_limit", f"more than {limits.cpu_seconds:g} CPU seconds"
        if reason == "wall":
            return (
                "wall_limit",
                f"not done after {limits.wall_seconds:g} s, of them {report['cpu']:.2f} on a CPU",
            )
        return settled

    def _own_end(self, report: dict) -> tuple[str, str]:
        """The verdict of a program that ended before its tests were done, or of a script."""
        if self.failure:
            return self.failure.verdict(), self.failure.describe()
        if report["status"] is None:
            return "infra", "the program's end was not seen"
        code = os.waitstatus_to_exitcode(report["status"])
        if code == -signal.SIGXCPU:
            return "cpu_limit", f"more than {self.limits.cpu_seconds:g} CPU seconds"
        if code < 0:
            return "signal", f"ended by {_signal_name(-code)}"
        if self.case.form == "script" and self.ended == code:
            return ("passed", "") if code == 0 else ("runtime_error", f"exit code {code}")
        return "incomplete", f"left with exit code {code} before its end"


def _shown(data: bytes) -> str:
    """A short value in words; a long one only by its size, since a stranger chose it."""
    if len(data) > _SHOWN_VALUE:
        return f"a value of {len(data)} bytes"
    try:
        return repr(codec.decode(data))
    except codec.Malformed:
        return "what is not a value"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _as_file(data: bytes) -> int:
    """A descriptor of a file in memory that holds `data`, at its start."""
    file = os.memfd_create("data", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _as_job(job: dict) -> int:
    return _as_file(marshal.dumps(job))
