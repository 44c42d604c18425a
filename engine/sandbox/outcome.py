"""From what was seen of a program to its verdict: which of several causes counts, and in what words.

A verdict's causes, strongest first: a broken sandbox, too much output, memory, processes, CPU time, wall time, then
what the judge or the comparison found, then how the process ended.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from .case import Case
from .cgroup import Events
from .verdict import Failure


@dataclass(slots=True)
class Seen:
    """What the event loop learned of one program."""

    settled: tuple[str, str] | None = None
    """The verdict and detail of the first thing that decided it."""
    failure: Failure | None = None
    """The error the program's process told of itself."""
    ended: object = None
    """The exit code a script told before it left; a script that told none did not come to its end."""
    recorded: bool = True
    """Whether a command has written the record it owed."""


def cause(case: Case, seen: Seen, report: dict, events: Events) -> tuple[str, str]:
    """The verdict's name and detail."""
    limits, reason = case.limits, report["reason"]
    settled = seen.settled or _own_end(case, seen, report["status"], report["reason"])
    if settled[0] in ("output_limit", "infra"):
        return settled
    if settled[0] != "passed":
        if events.oom_kills or reason == "memory":
            return "memory_limit", f"more than {limits.memory_mb} MB"
        if events.refused_forks or report["crowded"] or reason == "processes":
            return "process_limit", f"more than {limits.processes} processes and threads"
        if reason == "disk":
            return "disk_limit", f"more than {limits.disk_mb} MB"
        if seen.failure and not seen.settled:
            return settled  # a script's own error came before whatever kept it from leaving
    if reason == "cpu" or report["cpu"] > limits.cpu_seconds:
        return "cpu_limit", f"more than {limits.cpu_seconds:g} CPU seconds"
    if reason == "wall":
        return "wall_limit", f"not done after {limits.wall_seconds:g} s, of them {report['cpu']:.2f} on a CPU"
    return settled


def _own_end(case: Case, seen: Seen, status: int | None, reason: str) -> tuple[str, str]:
    """The verdict of a program that ended before its tests were done, or of a script."""
    if seen.failure:
        return seen.failure.verdict(), seen.failure.describe()
    if status is None:
        return "infra", "the program's end was not seen"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and reason == "asked":  # by the worker, once there was nothing left to hear
        return "incomplete", "closed its channel before its tests were done"
    if code == -signal.SIGXCPU:
        return "cpu_limit", f"more than {case.limits.cpu_seconds:g} CPU seconds"
    if code < 0:
        return "signal", f"ended by {_signal_name(-code)}"
    if case.form == "command" and code == 0 and not seen.recorded:
        return "incomplete", "left with exit code 0 before its tests were done"
    if case.form == "command" or (case.form == "script" and seen.ended == code):
        return ("passed", "") if code == 0 else ("runtime_error", f"exit code {code}")
    return "incomplete", f"left with exit code {code} before its end"


def exit_of(report: dict) -> tuple[int | None, int | None]:
    """Exit code and signal of a program that ended by itself; neither for one that was ended here."""
    if report["status"] is None or report["reason"]:
        return None, None
    code = os.waitstatus_to_exitcode(report["status"])
    return (None, -code) if code < 0 else (code, None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
