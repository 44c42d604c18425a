"""Machines reached one by one: the lead runs here and starts an agent on each, by ssh or the words of `command`."""

from __future__ import annotations

import shlex

from launch.backends.local import cancel, command, log_command, render, status, submit
from launch.cluster import Hosts
from launch.lead import Start
from launch.submission import Submission, inspection

# What the user's own options do not say: a machine that is gone, or behind a cut, is given up within half a minute.
LIFE_SIGNS = ("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")

__all__ = ["cancel", "command", "inspections", "log_command", "render", "starts", "status", "submit"]


def starts(submission: Submission, attempt: str) -> tuple[Start, ...]:
    """One command a machine."""
    place = submission.place
    assert isinstance(place, Hosts)
    found = []
    for node, host in enumerate(place.hosts):
        words = ("--head", place.hosts[0], "--attempt", attempt, "--node", str(node), "--held")
        line = f"cd {shlex.quote(str(submission.directory))} && exec {shlex.join(submission.agent(*words))}"
        found.append(Start((*_transport(place, host), line), (node,), held=True))
    return tuple(found)


def inspections(place: Hosts, directory: str) -> tuple[Start, ...]:
    """One command a machine. A working folder that is not there is for the inspection to tell."""
    go = f"cd {shlex.quote(directory)} 2>/dev/null || cd /"
    return tuple(
        Start((*_transport(place, host), f"{go}; exec {inspection(place.python, node)}"), (node,), held=True)
        for node, host in enumerate(place.hosts)
    )


def _transport(place: Hosts, host: str) -> tuple[str, ...]:
    """Words that run the shell line which follows them on a machine."""
    if place.command is not None:
        return (*(word.replace("{host}", host) for word in place.command), "/bin/sh", "-c")
    words = ["ssh", "-T", "-o", "BatchMode=yes", *place.options, *LIFE_SIGNS]
    words += ["-l", place.user] if place.user else []
    words += ["-p", str(place.port)] if place.port else []
    return (*words, "--", host)
