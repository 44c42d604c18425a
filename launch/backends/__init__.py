"""The places a run can go to: one module each, all with the same functions."""

from __future__ import annotations

from typing import Protocol

from launch.backends import hosts, kubernetes, local, slurm
from launch.backends.submitted import State, Submitted
from launch.submission import File, Submission

__all__ = ["BACKENDS", "Backend", "State", "Submitted"]


class Backend(Protocol):
    """What a place can do."""

    def render(self, submission: Submission) -> tuple[File, ...]:
        """The place's own files, as they will be written."""

    def command(self, submission: Submission) -> tuple[str, ...]:
        """The command that hands the run over."""

    def submit(self, submission: Submission) -> str:
        """Hand the written submission over; returns the place's name for it."""

    def status(self, submitted: Submitted) -> State:
        """What the place knows of it now."""

    def cancel(self, submitted: Submitted, *, now: bool) -> str:
        """Stop it, at a step border or at once; returns what was done."""

    def log_command(self, submitted: Submitted, node: int, *, follow: bool) -> tuple[str, ...] | None:
        """The command that prints a node's console; None where the run folder has it."""


BACKENDS: dict[str, Backend] = {"local": local, "hosts": hosts, "slurm": slurm, "kubernetes": kubernetes}
