"""The lead: starts the agents of all nodes, hands on what it is asked, and says in one sentence how it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from engine import errors, protocol
from engine.errors import PreflightError
from launch import reports
from launch.agent import ASKING, forget_last_attempt, unwritable
from launch.cluster import Hosts
from launch.reports import Attempt, Report, merged
from launch.submission import Submission
from launch.verdict import Verdict

LOOK_SECONDS = 0.1
REPORTS_SECONDS = 1.0
# After one node has ended badly the others hear of it from its report; this is for those that do not.
AFTER_FAILURE_SECONDS = 30.0
AFTER_KILL_SECONDS = 25.0
# ssh's own code for a connection that could not be made or has broken.
SSH_FAILED = 255


@dataclass(frozen=True, slots=True)
class Start:
    """One command that starts agents.

    Attributes:
        argv: the command.
        nodes: the nodes whose agents it starts.
        held: whether the agent obeys words on its standard input; else it gets signals through the command.
    """

    argv: tuple[str, ...]
    nodes: tuple[int, ...]
    held: bool


class Lead:
    """One attempt of a submission. Its run folder is `submission.launch.folder`, seen from the working folder.

    Args:
        submission: of what.
        name: which start it is.
        hosts: what the machines are called, where the place's own file does not say.
    """

    def __init__(self, submission: Submission, name: str, hosts: Sequence[str] = ()) -> None:
        self.submission = submission
        self.hosts = hosts
        self.attempt = Attempt(submission.launch.folder, name, protocol.now())
        self.heard: list[signal.Signals] = []
        self.asked: signal.Signals | None = None
        self.killed_at: float | None = None
        self.by_user = False
        self.failed_at: float | None = None
        self.looked_at = 0.0
        self.unwritten: list[Report] = []

    def run(self, starts: Sequence[Start]) -> Verdict:
        """Start everything, wait for all of it, tell how it ended."""
        launch = self.submission.launch
        try:
            launch.logs.mkdir(parents=True, exist_ok=True)
            forget_last_attempt(launch)
        except OSError as error:
            raise unwritable(launch, error) from None
        children: list[tuple[Start, subprocess.Popen[bytes]]] = []
        with self.listening():
            try:
                for start in starts:
                    children.append((start, self._popen(start)))
                self._watch(children)
            finally:
                for _, child in children:
                    with suppress(ProcessLookupError):
                        child.kill()
                    child.wait()
        for start, child in children:
            self._account(start, child.returncode)
        verdict = merged(
            self.attempt,
            launch.verb,
            launch.world_size,
            asked=self.asked is not None,
            killed=self.by_user,
            gave_up=self.killed_at is not None,
            unwritten=self.unwritten,
        )
        asked = self.asked.name if self.asked is not None else None
        return reports.conclude(self.attempt, verdict, launch.logs, asked=asked)

    @property
    def out_of_time(self) -> bool:
        """Whether it was the place that asked to stop, before the end of its time."""
        return self.asked == signal.SIGUSR1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals that ask for a stop are kept until the lead obeys them."""
        before = {number: signal.signal(number, self._hear) for number in ASKING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _popen(self, start: Start) -> subprocess.Popen[bytes]:
        # Ctrl-C goes to every process of the terminal's group: the agents must hear of it from us alone.
        stdin = subprocess.PIPE if start.held else subprocess.DEVNULL
        try:
            return subprocess.Popen(start.argv, stdin=stdin, start_new_session=True)
        except OSError as error:
            raise PreflightError(
                f"{start.argv[0]} cannot be started here: {error.strerror}",
                "install it, or mend the cluster file",
            ) from None

    def _hear(self, number: int, frame: FrameType | None) -> Any:
        self.heard.append(signal.Signals(number))

    def _watch(self, children: list[tuple[Start, subprocess.Popen[bytes]]]) -> None:
        accounted: set[int] = set()
        while alive := [one for one in children if one[1].poll() is None]:
            for start, child in children:
                if child.returncode is not None and child.pid not in accounted:
                    accounted.add(child.pid)
                    self._account(start, child.returncode)
                    self._tell_of_hangs(start)
                    if child.returncode not in (errors.DONE, errors.PREEMPTED):
                        self.failed_at = self.failed_at or time.monotonic()
            while self.heard:
                self._obey(self.heard.pop(0), alive)
            self._lose_patience(alive)
            time.sleep(LOOK_SECONDS)

    def _tell_of_hangs(self, start: Start) -> None:
        """Say at once who hung: the other nodes take some seconds more to end, and the verdict waits for them."""
        for report in reports.read(self.attempt):
            if report.hang and report.node in start.nodes and self.submission.launch.nodes > 1:
                print(
                    errors.spoken(f"{report.hang.sentence}; all nodes are ended"), file=sys.stderr, flush=True
                )

    def _obey(self, received: signal.Signals, alive: list[tuple[Start, subprocess.Popen[bytes]]]) -> None:
        if self.asked is None:
            self.asked = received
            for start, child in alive:
                _ask(start, child)
        elif received == signal.SIGINT and self.killed_at is None:
            self.by_user = True
            self._kill(alive)

    def _kill(self, alive: list[tuple[Start, subprocess.Popen[bytes]]]) -> None:
        self.killed_at = time.monotonic()
        for start, child in alive:
            if start.held and child.stdin is not None:
                with suppress(OSError):
                    child.stdin.close()
            else:
                child.terminate()

    def _lose_patience(self, alive: list[tuple[Start, subprocess.Popen[bytes]]]) -> None:
        now = time.monotonic()
        if self.killed_at is not None:
            if now - self.killed_at > AFTER_KILL_SECONDS:
                for _, child in alive:
                    child.kill()
        elif self.failed_at is not None:
            if now - self.failed_at > AFTER_FAILURE_SECONDS:
                self._kill(alive)
        elif now - self.looked_at > REPORTS_SECONDS:
            # One command for all nodes goes on while the last of them does, or for one that is not there any more.
            self.looked_at = now
            good = (errors.DONE, errors.PREEMPTED)
            if any(report.code not in good for report in reports.read(self.attempt)):
                self.failed_at = now

    def _account(self, start: Start, code: int) -> None:
        """Write a report for every node that ended without one."""
        told = {report.node for report in (*reports.read(self.attempt), *self.unwritten)}
        place = self.submission.place
        unreached = isinstance(place, Hosts) and place.command is None and code == SSH_FAILED
        for node in start.nodes:
            if node not in told:
                lost = Report(
                    node,
                    self.hosts[node] if self.hosts else place.host(node),
                    code or errors.BUG,
                    protocol.now(),
                    lost=True,
                    unreached=unreached,
                )
                if not reports.leave(self.attempt, lost):
                    self.unwritten.append(lost)


def _ask(start: Start, child: subprocess.Popen[bytes]) -> None:
    if start.held and child.stdin is not None:
        with suppress(OSError):
            child.stdin.write(b"s")
            child.stdin.flush()
    else:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGUSR1)
