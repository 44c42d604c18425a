"""The family of errors a user can meet, each with the exit code it ends the process with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

DONE = 0
BUG = 1
WRONG_WISH = 2
PREFLIGHT_FAILED = 3
PREEMPTED = 75
DO_NOT_REQUEUE = 93


class TemperError(Exception):
    """Something a user can act on: shown as one sentence with its fix, never as a stack trace.

    Args:
        what: what happened, with the values involved.
        fix: what to do about it.
    """

    exit_code = BUG

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what.rstrip('.')}: {fix}" if fix else what)
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[type[TemperError], tuple[str, str]]:
        return type(self), (self.what, self.fix)


class WishError(TemperError):
    """The run asks for something that cannot be had: refused before anything is started."""

    exit_code = WRONG_WISH


class PreflightError(TemperError):
    """The place cannot do what the run needs, or a result is not what it must be before use (exit code 3)."""

    exit_code = PREFLIGHT_FAILED


class Stopped(TemperError):
    """The run stopped itself and starting it again would end the same way (exit code 93)."""

    exit_code = DO_NOT_REQUEUE


class Preempted(TemperError):
    """The run was asked to stop, saved at a step border and can be resumed (exit code 75)."""

    exit_code = PREEMPTED


def spoken(error: object) -> str:
    """An error as a command tells it: all begin alike, whichever process they come from."""
    return f"temper: {error}"


def misused(error: click.ClickException) -> str:
    """A mistake on the command line as one sentence, with where to read on; a group called bare gives its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    what = " ".join(error.format_message().split()).rstrip(".")
    return spoken(f"{what} (see `{context.command_path} --help`)" if context else what)
