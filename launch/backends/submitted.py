"""What is kept about a run that was handed to a place, and asking the place's own commands."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import TypeAdapter

from engine import protocol
from engine.errors import PreflightError, WishError
from launch import submission

FILE = "submission.json"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission that a place has taken.

    Attributes:
        number: counts the submissions of the run folder.
        kind: of place.
        job: the place's name for it; where the lead is a process, its number.
        host: where it was submitted.
        seconds: when, wall clock.
        folder: the run folder.
        began: when the process that waits for the run was started, by the kernel's ticks; None: nobody waits.
    """

    number: int
    kind: str
    job: str
    host: str
    seconds: float
    folder: str
    began: int | None = None

    @property
    def submission(self) -> submission.Submission:
        """What was submitted."""
        return submission.read(Path(self.folder) / submission.FOLDER / str(self.number) / submission.JOB)


@dataclass(frozen=True, slots=True)
class State:
    """What a place knows of a run."""

    word: Literal["queued", "running", "ended", "unknown"]
    detail: str = ""


def keep(submitted: Submitted) -> None:
    """Leave word in the run folder."""
    protocol.write_json(
        Path(submitted.folder) / FILE, TypeAdapter(Submitted).dump_python(submitted, mode="json")
    )


def newest(folder: Path) -> Submitted | None:
    """The newest submission of a run folder; None where nothing was submitted."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return TypeAdapter(Submitted).validate_json(file.read_bytes())
    except ValueError as error:
        raise WishError(f"{file} is no record of a submission: {error}", "submit the run again") from None


def ask(argv: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a place's command, with `text` on its standard input.

    Raises:
        PreflightError: it is not installed here.
    """
    try:
        return subprocess.run(argv, capture_output=True, text=True, input=text)
    except FileNotFoundError:
        raise PreflightError(
            f"{argv[0]} is not installed here", "run this where the cluster is reached from"
        ) from None


def demand(argv: Sequence[str], text: str = "") -> str:
    """Run a place's command and return what it printed.

    Raises:
        PreflightError: it refused.
    """
    done = ask(argv, text)
    if done.returncode:
        refused(argv, done)
    return done.stdout.strip()


def refused(argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> NoReturn:
    """Tell that a place's command did not do what it was to.

    Raises:
        PreflightError: always.
    """
    said = " ".join((done.stderr or done.stdout).split())
    raise PreflightError(f"{argv[0]} refused: {said}", "mend the cluster file, or the run's place")
