"""This machine: the lead goes on in the background, with one agent below it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress

from engine.errors import WishError
from launch import processes
from launch.backends.submitted import State, Submitted
from launch.cluster import Local
from launch.command import LOOPBACK
from launch.lead import Start
from launch.submission import JOB, LOG, File, Submission, inspection

# Signals of one kind that wait to be handled are one.
BETWEEN_SECONDS = 0.3


def render(submission: Submission) -> tuple[File, ...]:
    """Nothing of its own."""
    return ()


def command(submission: Submission) -> tuple[str, ...]:
    """The lead, on this machine."""
    return submission.lead


def starts(submission: Submission, attempt: str) -> tuple[Start, ...]:
    """One agent."""
    words = ("--head", LOOPBACK, "--attempt", attempt, "--node", "0", "--held")
    return (Start(submission.agent(*words), (0,), held=True),)


def inspections(place: Local, directory: str) -> tuple[Start, ...]:
    """One command."""
    return (Start(("/bin/sh", "-c", f"exec {inspection(None, 0)}"), (0,), held=True),)


def submit(submission: Submission) -> str:
    """Start the lead in the background; returns its process number."""
    with (submission.here / LOG).open("ab") as log:
        lead = subprocess.Popen(
            command(submission), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    return str(lead.pid)


def status(submitted: Submitted) -> State:
    """Whether the lead is at work."""
    if submitted.host != socket.gethostname():
        return State("unknown", f"it was started on {submitted.host}: ask there")
    if _lead(submitted) is None:
        return State("ended")
    return State("running", f"process {submitted.job} on {submitted.host}")


def cancel(submitted: Submitted, *, now: bool) -> str:
    """Ask the lead to stop, or to kill."""
    if submitted.host != socket.gethostname():
        raise WishError(
            f"the run was started on {submitted.host} and this is {socket.gethostname()}",
            f"cancel it on {submitted.host}",
        )
    pid = _lead(submitted)
    if pid is None:
        return "it has ended already"
    if not now:
        os.kill(pid, signal.SIGTERM)
        return "it stops at the next step border and saves"
    # As by Ctrl-C twice: a lead that is itself killed leaves no verdict.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
        time.sleep(BETWEEN_SECONDS)
        os.kill(pid, signal.SIGINT)
    return "its processes are killed"


def log_command(submitted: Submitted, node: int, *, follow: bool) -> tuple[str, ...] | None:
    """The run folder has all."""
    return None


def _lead(submitted: Submitted) -> int | None:
    """The lead's process, if the number has not passed to another."""
    if submitted.began is not None:
        return int(submitted.job) if processes.began(int(submitted.job)) == submitted.began else None
    pid, job = int(submitted.job), str(submitted.submission.there / JOB)
    return pid if job in processes.words(pid) and "lead" in processes.words(pid) else None
