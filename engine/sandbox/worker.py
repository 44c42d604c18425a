"""One worker: keeps a jail for programs and one for a judge, runs one program at a time and settles its verdict.

This process is the trusted middle. It runs no stranger's code, rebuilds no stranger's value, waits on no pipe a program
can hold, and knows the expected values that programs never see.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from dataclasses import dataclass, replace

from . import codec, wire
from .case import Case, pack_verdict
from .jail import Shape
from .judge import JUDGE_LIMITS
from .keeper import JailError, Keeper, clear_after
from .session import Broken, Session
from .sitting import Sitting
from .verdict import Verdict

_TRUSTED_FRAME = 256 << 20
_LOOK_FOR_PARENT_MS = 2000


def main(descriptor: int) -> None:
    """Serve programs from the supervisor's socket until it is closed or the supervisor is gone."""
    link = socket.socket(fileno=descriptor)
    inbox = wire.Inbox(_TRUSTED_FRAME)
    hello = inbox.wait(descriptor)
    if hello is None:
        return
    request = codec.decode(hello.body)
    with contextlib.suppress(
        OSError
    ):  # a program and its judge hand over to each other, not to whoever wakes
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    settle_on_a_cpu(request["place"])
    if request["after"]:
        clear_after(request["after"])
    setup = Setup(**request["setup"])
    worker = Worker(setup, link)
    try:
        wire.send(descriptor, b"H", codec.encode(worker.open(request["levels"], request["disk_mb"])))
        orders = Orders(link, inbox)
        while (order := orders.next()) is not None:
            number, request = order
            verdict = pack_verdict(worker.run(Case.unpack(request)))
            wire.send(descriptor, b"V", wire.numbered(number, verdict))
    except OSError:
        return  # the supervisor closed its end while it was being answered
    finally:
        worker.close()


def settle_on_a_cpu(number: int) -> None:
    """Stay on one CPU, with all this process starts: the one of this number, counted round.

    A program and its judge take turns: on one CPU a turn costs microseconds, across two it costs ten times that, and
    a program that burns every core would take its neighbours' time.
    """
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})


class Orders:
    """The programs the supervisor has handed over, in turn, less those it has taken back."""

    def __init__(self, link: socket.socket, inbox: wire.Inbox) -> None:
        self.link, self.inbox = link, inbox
        self.parent = os.getppid()
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.poll = select.poll()
        self.poll.register(link, select.POLLIN)

    def next(self) -> tuple[int, bytes] | None:
        """The next program's number and request; None when the supervisor is gone."""
        while self._readable(wait=not self.waiting):
            data = os.read(self.link.fileno(), wire.READ)
            if not data:
                return None
            for frame in self.inbox.feed(data):
                self._take(frame)
        return self.waiting.popleft() if self.waiting else None

    def _take(self, frame: wire.Frame) -> None:
        number, request = wire.read_number(frame.body)
        if frame.kind == b"P":
            self.waiting.append((number, request))
            return
        for order in [order for order in self.waiting if order[0] == number]:
            self.waiting.remove(order)
            wire.send(self.link.fileno(), b"S", wire.numbered(number))

    def _readable(self, *, wait: bool) -> bool:
        """Whether there is something to read. Waits for it, but no longer than the supervisor lives: a fork of that
        may still hold the socket's other end."""
        while not self.poll.poll(_LOOK_FOR_PARENT_MS if wait else 0):
            if not wait or os.getppid() != self.parent:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Setup:
    """What a pool's jails are like, besides their level."""

    fresh: bool
    """Whether each program has namespaces of its own."""
    preload: tuple[str, ...]
    packages: tuple[str, ...]
    """Folders the preloaded modules, and what they load later, come from."""
    engine: str | None = None
    """The outer engine programs run in; judges never do."""
    executable: str = ""
    """Of the engine."""


class Worker:
    """One program at a time, in a jail that is kept from program to program."""

    def __init__(self, setup: Setup, link: socket.socket) -> None:
        self.setup = setup
        self.link = link
        self.level = ""
        self.keepers: dict[str, Keeper] = {}
        self.sitting: Sitting | None = None

    def open(self, levels: list[str], disk_mb: int) -> dict:
        """Build the strongest jail of the asked levels; {"level", "problems"} (level "" when none can be had)."""
        problems = {}
        role = "judge" if self.setup.engine else "solution"
        for level in levels:
            try:
                self.level = level
                self.keepers[role] = self._build(role, JUDGE_LIMITS.disk_mb if self.setup.engine else disk_mb)
                break
            except JailError as error:
                problems[level] = str(error)
                self.level = ""
        if self.level and self.setup.engine:
            try:
                self.keepers["solution"] = self._build("solution", disk_mb)
            except JailError as error:
                self.level, problems = "", {self.setup.engine: str(error)}
        pages = self.keepers["solution"].eager_pages if self.level else 0
        return {"level": self.level, "problems": problems, "eager_pages": pages}

    def run(self, case: Case) -> Verdict:
        """The verdict's fields. A sandbox that breaks is built again and the program run once more."""
        try:
            return self._attempt(case)
        except (Broken, JailError, OSError):
            self.close()
        try:
            return self._attempt(case)
        except (Broken, JailError, OSError) as error:
            self.close()
            return Verdict(
                "infra", f"the sandbox broke twice: {error}", isolation=self.setup.engine or self.level
            )

    def _attempt(self, case: Case, *, ahead: bool = True) -> Verdict:
        shown = case.command.shown if case.command else ()
        solution = self._keeper(case.jail, case.limits.disk_mb, shown)
        if case.form == "test":
            self._judge()  # seated before the program's clock runs, whether or not it will be asked
        session = Session(case, solution, self._judge, self.link, ahead=ahead)
        verdict = session.run()
        if session.spent:
            self.keepers.pop(case.jail).close()
        if session.judge_lost and self.sitting:
            self.sitting.forget()
            self.sitting = None
            self.keepers.pop("judge").close()
        return self._attempt(case, ahead=False) if session.again else verdict

    def _judge(self) -> Sitting:
        """The judge that sits, or a new one where it has ended or sat long enough."""
        if self.sitting and self.sitting.spent:
            self.sitting.close()
            if not self.sitting.left_clean:
                self.keepers.pop("judge").close()
            self.sitting = None
        if self.sitting is None:
            self.sitting = Sitting(self._keeper("judge", JUDGE_LIMITS.disk_mb))
        return self.sitting

    def _keeper(self, role: str, disk_mb: int, shown: tuple[str, ...] = ()) -> Keeper:
        keeper = self.keepers.get(role)
        if keeper and (keeper.disk_mb != disk_mb or not keeper.shown.issuperset(shown)):
            self.keepers.pop(role).close()
            keeper = None
        if keeper is None:
            keeper = self.keepers[role] = self._build(role, disk_mb, shown)
        return keeper

    def _build(self, role: str, disk_mb: int, shown: tuple[str, ...] = ()) -> Keeper:
        """A jail: for Python programs, for those with their test beside them, for the judge, for commands."""
        setup, shape = self.setup, Shape(self.level, disk_mb)
        if role == "judge":
            return Keeper(shape)
        if role in ("solution", "together"):
            preload = (*setup.preload, "engine.sandbox.together") if role == "together" else setup.preload
            often = replace(shape, forks_often=True, shown=setup.packages, preload=preload)
            if setup.engine:
                return Keeper(replace(often, level=setup.engine, executable=setup.executable))
            return Keeper(replace(often, fresh=setup.fresh))
        return Keeper(replace(shape, fresh=setup.fresh, shown=shown))

    def close(self) -> None:
        if self.sitting:
            self.sitting.forget()
            self.sitting = None
        while self.keepers:
            self.keepers.popitem()[1].close()
