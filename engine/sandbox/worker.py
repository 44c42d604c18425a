"""One worker: keeps a jail for programs and one for judges, runs one program at a time and settles its verdict.

This process is the trusted middle. It runs no stranger's code, rebuilds no stranger's value, waits on no pipe a program
can hold, and knows the expected values that programs never see.
"""

from __future__ import annotations

import os
import select
import socket

from . import codec, wire
from .case import Case, pack_verdict
from .keeper import JailError, Keeper, clear_after
from .session import JUDGE_LIMITS, Broken, Session
from .verdict import Verdict

_TRUSTED_FRAME = 256 << 20
_LOOK_FOR_PARENT_MS = 2000


def main(descriptor: int) -> None:
    """Serve programs from the supervisor's socket until it is closed or the supervisor is gone."""
    link = socket.socket(fileno=descriptor)
    inbox = wire.Inbox(_TRUSTED_FRAME)
    hello = _next_frame(link, inbox)
    if hello is None:
        return
    request = codec.decode(hello.body)
    if request["after"]:
        clear_after(request["after"])
    worker = Worker(request["levels"], link)
    try:
        wire.send(descriptor, b"H", codec.encode(worker.open(request["disk_mb"])))
        while (frame := _next_frame(link, inbox)) is not None:
            wire.send(descriptor, b"V", pack_verdict(worker.run(Case.unpack(frame.body))))
    except OSError:
        return  # the supervisor closed its end while it was being answered
    finally:
        worker.close()


def _next_frame(link: socket.socket, inbox: wire.Inbox) -> wire.Frame | None:
    """Wait for the supervisor, noticing its death even when a fork of it still holds the socket's other end."""
    parent = os.getppid()
    poll = select.poll()
    poll.register(link, select.POLLIN)
    while not poll.poll(_LOOK_FOR_PARENT_MS):
        if os.getppid() != parent:
            return None
    return inbox.wait(link.fileno())


class Worker:
    def __init__(self, levels: list[str], link: socket.socket) -> None:
        self.levels = levels
        self.link = link
        self.level = ""
        self.keepers: dict[str, Keeper] = {}

    def open(self, disk_mb: int) -> dict:
        """Build the strongest jail of the asked levels; {"level", "problems"} (level "" when none can be had)."""
        problems = {}
        for level in self.levels:
            try:
                self.keepers["solution"] = Keeper(level, disk_mb)
                self.level = level
                break
            except JailError as error:
                problems[level] = str(error)
        return {"level": self.level, "problems": problems}

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
            return Verdict("infra", f"the sandbox broke twice: {error}", isolation=self.level)

    def _attempt(self, case: Case) -> Verdict:
        solution = self._keeper("solution", case.limits.disk_mb)
        judge = self._keeper("judge", JUDGE_LIMITS.disk_mb) if case.test is not None else None
        session = Session(case, solution, judge, self.link)
        verdict = session.run()
        for role in session.spent:
            self.keepers.pop(role).close()
        return verdict

    def _keeper(self, role: str, disk_mb: int) -> Keeper:
        keeper = self.keepers.get(role)
        if keeper and keeper.disk_mb != disk_mb:
            self.keepers.pop(role).close()
            keeper = None
        if keeper is None:
            keeper = self.keepers[role] = Keeper(self.level, disk_mb)
        return keeper

    def close(self) -> None:
        while self.keepers:
            self.keepers.popitem()[1].close()
