"""Processes as the kernel shows them: who belongs to an attempt, how one ended, and killing all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One row of the process table. `status` is the wait status, and only means something once `state` is Z."""

    pid: int
    parent: int
    state: str
    status: int


def read(pid: int) -> Process | None:
    """One process; None when it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name, in brackets, may itself hold spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return Process(pid=pid, state=fields[0], parent=int(fields[1]), status=int(fields[49]))


def table() -> Iterator[Process]:
    """Every process there is."""
    for name in os.listdir(PROC):
        if name.isdigit():
            process = read(int(name))
            if process is not None:
                yield process


def began(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks: with its number, what no other process has."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def words(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty when it is gone."""
    return _null_separated(pid, "cmdline")


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone or not ours."""
    return dict(word.partition("=")[::2] for word in _null_separated(pid, "environ"))


def _null_separated(pid: int, name: str) -> tuple[str, ...]:
    try:
        data = (PROC / str(pid) / name).read_bytes()
    except OSError:
        return ()
    return tuple(word.decode(errors="replace") for word in data.split(b"\0")[:-1])


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    return [process.pid for process in table() if process.parent == pid]


def ranks(launcher: int, target: Sequence[str], variable: str = "RANK") -> dict[int, int]:
    """The rank processes below a launcher, rank to pid: those children whose command line ends with `target`.

    A launcher that starts a single rank does so without the `variable`; that child is rank 0.
    """
    wanted = tuple(target)
    # A child between fork and exec still has the launcher's own command line, which ends in the target as well.
    own = words(launcher)
    found = {}
    for pid in children(launcher):
        said = words(pid)
        if said != own and said[-len(wanted) :] == wanted:
            found[int(environment(pid).get(variable, "0"))] = pid
    return found


def ended(pid: int) -> int | None:
    """Exit code of a process that has ended and not been collected (negative: signal); None when it is not known."""
    process = read(pid)
    if process is None or process.state not in "ZX":
        return None
    return os.waitstatus_to_exitcode(process.status)


def belonging(mark: bytes, *, spare: frozenset[int] = frozenset()) -> set[int]:
    """All processes that were started with `mark` (`NAME=value`) in their environment, and all below them."""
    rows = list(table())
    members = set()
    for row in rows:
        with suppress(OSError):
            # Ended by a zero, as the kernel has it: one attempt's name may begin with another's.
            if row.state != "Z" and mark + b"\0" in (PROC / str(row.pid) / "environ").read_bytes():
                members.add(row.pid)
    # Programs that wiped their environment are found through their parents.
    grown = True
    while grown:
        below = {row.pid for row in rows if row.parent in members and row.state != "Z"} - members
        members |= below
        grown = bool(below)
    return members - spare


def kill_all(mark: bytes, *, spare: frozenset[int] = frozenset(), limit_seconds: float = 10.0) -> set[int]:
    """Kill every process of an attempt and all they start meanwhile; returns what still lives after the limit."""
    deadline = time.monotonic() + limit_seconds
    while True:
        left = belonging(mark, spare=spare)
        if not left or time.monotonic() > deadline:
            return left
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
