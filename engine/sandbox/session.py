"""One program from order to verdict, inside the worker: an event loop over pipes that nobody is ever waited on."""

from __future__ import annotations

import contextlib
import itertools
import json
import marshal
import math
import os
import select
import socket
import time
from collections.abc import Callable
from functools import lru_cache

from . import codec, wire
from .ahead import Foreseen, foresee
from .case import Case
from .hearing import AskTheJudge, listener
from .judge import judging_seconds
from .keeper import Keeper
from .outcome import Seen, cause, exit_of
from .sitting import Sitting
from .streams import Output, as_file
from .verdict import MOST_FILES, MOST_WALL, OUTPUT_CAP_FACTOR, File, Verdict, one_line
from .watch import Stopwatch

_GRACE_SECONDS = 20.0
_LAST_WORDS_SECONDS = 3.0
"""How long a judge may go on after its program has ended."""
_MOST_COLLECTED = 64 << 20
_LEAST_EXCUSE_SECONDS = 0.02
_serials = itertools.count(1)


@lru_cache(maxsize=1)
def _clock() -> Stopwatch:
    """Of this worker's process."""
    return Stopwatch(os.getpid())


class Broken(Exception):
    """The sandbox, not the program, failed."""


class Session:
    """Run one program in its jail, and before its judge where it has a test; `spent` says the jail must be rebuilt."""

    def __init__(
        self,
        case: Case,
        solution: Keeper,
        summon: Callable[[], Sitting],
        link: socket.socket,
        *,
        ahead: bool = True,
    ) -> None:
        self.case, self.limits = case, case.limits
        self.solution, self.summon, self.link = solution, summon, link
        self.judge: Sitting | None = None
        self.serial = next(_serials)
        self.seen = Seen()
        self.spent = False
        self.judge_lost = False
        """The judge's jail itself has ended."""
        self.ruled = True
        """No judge is at it, or it has ruled."""
        self.foreseen = foresee(case.test) if ahead and case.form == "test" and case.test else Foreseen()
        self.listener = listener(case, self.seen, self.foreseen.answers)
        self.said = bytearray()
        """All the program has said, for the judge to hear where it must be asked after all."""
        self.again = False
        """The verdict may owe something to calls the program made ahead of the test: run it without."""
        self.report: dict | None = None
        self.files: list[File] = []
        self.deadline = time.monotonic() + self.limits.wall_seconds * MOST_WALL + _GRACE_SECONDS
        self.last_words = math.inf
        self.began = _clock().read()
        self.excused = 0.0
        """Wall seconds the program was given for those it was kept waiting."""
        self.drained = 0.0
        """Seconds this worker only took in what the program printed, for which no program has to wait."""
        self.mark: float | None = None
        self.printed = 0
        self.inbox = wire.Inbox()
        self.events = -1
        self.unsent = memoryview(b"")
        self.heard = b""
        self.streams: dict[int, Output] = {}
        self.poll = select.poll()

    def run(self) -> Verdict:
        try:
            self._start()
            while not (self.report and self.ruled):
                self._step()
            for fd in list(self.streams):
                self._drain(fd)
            return self._verdict()
        finally:
            for fd in (*self.streams, self.events):
                if fd >= 0:
                    os.close(fd)

    def _start(self) -> None:
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        room = self.limits.output_kb * 1024
        self.streams = {out: Output(room, keep_last=False), err: Output(room, keep_last=True)}
        near, far = os.pipe() if self.case.command else (s.detach() for s in socket.socketpair())
        for fd in (child_out, child_err, *([far] if self.case.command else [])):
            os.fchmod(fd, 0o666)  # for programs that open it by name, as /dev/stderr or /dev/fd/3
        stdin = as_file(self.case.stdin) if self.case.stdin else os.open(os.devnull, os.O_RDONLY)
        fds = [stdin, child_out, child_err, far, as_file(marshal.dumps(self._job()))]
        try:
            self.solution.run(self.serial, "program", self.limits, fds, self.case)
        except BaseException:
            os.close(near)
            raise
        finally:
            for fd in fds:
                os.close(fd)
        if self.case.form == "test" and not self.foreseen.answers:
            self._open_trial(near)
        else:
            self.events = near
        for fd in (*self.streams, self.events):
            if fd >= 0:
                os.set_blocking(fd, False)
                self.poll.register(fd, select.POLLIN)
        self.poll.register(self.solution.control, select.POLLIN)
        self.poll.register(self.link, select.POLLRDHUP)  # what it sends meanwhile is for later

    def _job(self) -> dict:
        """What the program's process is told: never a test of a judge apart, never an expected value."""
        case = self.case
        job: dict = {"form": case.form, "source": case.source, "calls": case.expressions}
        job["ahead"] = (case.entry_point, self.foreseen.calls)
        job["arguments"] = case.arguments
        job["files"] = [(file.name, file.data, file.executable) for file in case.files]
        if case.command:
            job["command"] = case.command.argv
            job["environment"] = dict(case.command.environment)
        return job

    def _open_trial(self, channel: int) -> None:
        """Have the test run by the judge, which hears the program from its first word on."""
        case, seconds = self.case, judging_seconds(self.limits)
        job = {
            "test": case.test,
            "entry_point": case.entry_point,
            "context": case.context,
            "ahead": self.foreseen.calls,
            "said": bytes(self.said),
            "cpu_seconds": seconds,
        }
        file = as_file(marshal.dumps(job))
        try:
            self.judge, self.ruled = self.summon(), False
            self.judge.try_case(file, channel, seconds)
        finally:
            os.close(file)
            os.close(channel)
        self.poll.register(self.judge.link, select.POLLIN)
        self.poll.register(self.judge.keeper.control, select.POLLIN)

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self.deadline:
            raise Broken("the jail does not answer")
        if self.judge and now >= self.last_words:
            self.judge.end()
            self.last_words = math.inf
        ready = [fd for fd, _ in self.poll.poll((min(self.deadline, self.last_words) - now) * 1000 + 1)]
        for fd in ready:
            if fd in self.streams:
                self._drain(fd)
            elif fd == self.events:
                self._read_events()
                self._send_reply()
            elif fd == self.link.fileno():
                raise SystemExit  # the supervisor is gone; nobody wants the verdict
            elif fd == self.solution.control.fileno():
                self._read_report()
            elif self.judge and fd == self.judge.link.fileno():
                self._read_ruling(self.judge)
            elif self.judge:
                self._judge_left(self.judge)
        self._count_drained(only=all(fd in self.streams for fd in ready))

    def _count_drained(self, *, only: bool) -> None:
        """A program that drips output and sleeps keeps a worker busy; that is no excuse for sleeping."""
        if not only:
            self.mark = None
            return
        before, self.mark = self.mark, _clock().read()
        if before is not None:
            self.drained += self.mark - before

    def _drain(self, fd: int) -> None:
        for _ in range(64):  # then let the other descriptors have their turn
            try:
                data = os.read(fd, wire.READ)
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
        if self.events < 0:
            return False
        try:
            data = os.read(self.events, wire.READ)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._forget(self.events)
            return False
        if self.case.command:
            self.heard = (self.heard + data)[: len(self.case.command.record) + 1]
            return True
        if self.foreseen.answers and not self.seen.settled:
            self.said += data
        try:
            for frame in self.inbox.feed(data):
                if not self.seen.settled and not self.judge:
                    self._hear(frame)
        except codec.Malformed as error:
            self._settle("wrong", f"the program broke the protocol: {error}")
        return True

    def _read_report(self) -> None:
        data, fds, _, _ = socket.recv_fds(self.solution.control, 1 << 16, MOST_FILES)
        if not data:
            self._lost()
            return
        report = json.loads(data)
        if "overdue" in report:
            self._answer_for(report["serial"])
            return
        self.report = report
        self._read_collected(report.get("collected", []), fds)
        if report["serial"] != self.serial:
            raise Broken("a report of another program")
        if report["trouble"]:
            raise Broken(report["trouble"])
        self.spent = not report["clean"]
        while self._read_events():
            pass
        if not self.ruled:
            # The judge may not have read the program's last words yet (the error it ended with), so it may finish
            # hearing them; the end of its channel follows. What else the test had to do, it has no candidate for.
            self.last_words = time.monotonic() + _LAST_WORDS_SECONDS

    def _answer_for(self, serial: int) -> None:
        """A program seems to have slept too long: end it, unless it waited for its judge or for this worker."""
        kept = _clock().read() - self.began - self.drained + (self.judge.busy() if self.judge else 0.0)
        if kept - self.excused < _LEAST_EXCUSE_SECONDS:
            self.solution.end(serial, "wall")
        else:
            self.solution.excuse(serial, kept - self.excused)
            self.excused = kept

    def _read_collected(self, names: list[str], fds: list[int]) -> None:
        room = _MOST_COLLECTED
        for name, fd in zip(names, fds, strict=True):
            with open(fd, "rb") as file:
                data = file.read(room + 1)
            room -= len(data)
            if room >= 0:
                self.files.append(File(name, data))

    def _lost(self) -> None:
        """A jail's first process ended: the kernel may have picked it when its group ran out of memory."""
        if not self.solution.events().oom_kills:
            raise Broken("the jail of the program ended by itself")
        self.spent = True
        self.seen.settled = self.seen.settled or ("memory_limit", f"more than {self.limits.memory_mb} MB")
        self.poll.unregister(self.solution.control)
        self.report = {
            "status": None,
            "reason": "memory",
            "crowded": False,
            "cpu": 0.0,
            "wall": 0.0,
            "peak_kb": 0,
        }
        if not self.ruled:
            self.last_words = time.monotonic() + _LAST_WORDS_SECONDS

    def _read_ruling(self, judge: Sitting) -> None:
        ruling = judge.ruling()
        self.poll.unregister(judge.link)
        if ruling is None:
            return  # its report follows
        self.ruled = True
        self.last_words = math.inf
        if ruling[0] == "gone":  # how the program ended tells the verdict
            self.solution.end(self.serial)
        else:
            self._settle(*ruling)

    def _judge_left(self, judge: Sitting) -> None:
        """The judge's process ended in the middle of a trial."""
        self._forget(judge.keeper.control.fileno())
        self.judge_lost = not judge.read_report()
        self.ruled = True
        if self.seen.settled:
            return  # it was told to end
        # Its end closes the program's channel, so a program that has left may have left because of it.
        fault = judge.fault()
        if fault is None and (judge.report or {}).get("reason") == "asked":
            return  # by this session, after the program's end
        if fault is None:
            raise Broken(f"the judge ended without a ruling ({judge.report})")
        self._settle(*fault)

    def _hear(self, frame: wire.Frame) -> None:
        try:
            decision = self.listener.hear(frame)
        except AskTheJudge:
            self._forget(self.events)
            os.set_blocking(self.events, True)
            channel, self.events = self.events, -1
            self._open_trial(channel)
            return
        if self.listener.reply:
            self.unsent = memoryview(self.listener.reply)
            self.poll.modify(self.events, select.POLLIN | select.POLLOUT)
        if decision:
            self._settle(*decision)

    def _send_reply(self) -> None:
        """Send what the channel takes now: a program that does not read must not hold the worker."""
        if not self.unsent:
            return
        try:
            self.unsent = self.unsent[os.write(self.events, self.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.unsent = memoryview(b"")
        if not self.unsent:
            with contextlib.suppress(OSError):
                self.poll.modify(self.events, select.POLLIN)

    def _settle(self, verdict: str, detail: str) -> None:
        """The verdict is known (the first one stays): the program may go, and with it the judge's channel."""
        self.seen.settled = self.seen.settled or (verdict, detail)
        self.solution.end(self.serial)

    def _owes_to_calls_ahead(self, name: str) -> bool:
        """Whether a call the test had not come to may have tipped the verdict: a limit met after an assert failed."""
        ruled = self.seen.settled[0] if self.seen.settled else name
        return name in ("again", "output_limit") or ruled not in ("passed", name)

    def _verdict(self) -> Verdict:
        report = self.report or {}
        # Read whatever the verdict is: what is left in the counters would be held against the next program.
        events = self.solution.events()
        if self.case.command:
            self.seen.recorded = self.heard == self.case.command.record
        name, detail = cause(self.case, self.seen, report, events)
        self.again = bool(self.foreseen.calls) and self._owes_to_calls_ahead(name)
        code, sig = exit_of(report)
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
            form=self.case.form,
            files=tuple(self.files),
        )
