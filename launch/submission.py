"""A run as it is handed to a place: one frozen value that every node reads, and the snapshot beside it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine import protocol
from engine.config import Run, dump
from engine.errors import WishError
from launch.cluster import Hosts, Kubernetes, Local, Place, Slurm
from launch.command import LaunchPlan, shared_plan

FOLDER = "submissions"
JOB, CODE, ENVIRONMENT, LOG = "job.json", "code", "environment.json", "lead.log"
PACKAGES = ("engine", "launch")
# A pod gets these files before it has any disk of ours.
IN_PODS = Path("/etc/temper")
HERE = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission of one run.

    Attributes:
        number: counts the submissions of the run folder.
        name: what the place calls it.
        launch: what is started on each node, as far as it is the same on all.
        place: where.
        python: interpreter on the nodes.
        directory: working folder on the nodes; relative paths of the run start there.
        there: folder of this value and the effective Run, as the nodes see it.
        code: folder the nodes import Temper from; empty: as installed in their image.
        run: the effective Run, as YAML; a file of its own, so empty in a value that was read back.
        unchecked: whether a job of SLURM starts its ranks without a look at the machines it was given.
    """

    number: int
    name: str
    launch: LaunchPlan
    place: Place
    python: str
    directory: Path
    there: Path
    code: Path | None
    run: str = ""
    unchecked: bool = False

    @property
    def here(self) -> Path:
        """Its folder, as one who stands in the working folder of the machine it is submitted from sees it."""
        return self.launch.folder / FOLDER / str(self.number)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before each command of Temper on a node: import the snapshot, whatever lies in the working folder."""
        if self.code is None:
            return (self.python, "-m", "launch")
        return ("env", f"PYTHONPATH={self.code}", "PYTHONSAFEPATH=1", self.python, "-m", "launch")

    def agent(self, *words: str) -> tuple[str, ...]:
        """The node agent's command; the same on every node, unless `words` tell one who it is."""
        return (*self.prefix, "agent", "--job", str(self.there / JOB), *words)

    @property
    def lead(self) -> tuple[str, ...]:
        """The command that starts all agents, waits for them and says how it ended."""
        return (*self.prefix, "lead", "--job", str(self.there / JOB))


def inspection(python: str | None, node: int | None) -> str:
    """The shell words that look at a node, which asks its place for its number where `node` is empty.

    There is no snapshot yet, and this package may be missing there: it is found as it lies here, or as it is installed
    there. What else is imported there stays what a rank would import.
    """
    path = f'"${{PYTHONPATH:+$PYTHONPATH:}}"{shlex.quote(str(HERE))}'
    number = () if node is None else ("--node", str(node))
    words = (python or sys.executable, "-m", "launch", "inspect", *number)
    return f"env PYTHONPATH={path} PYTHONSAFEPATH=1 {shlex.join(words)}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a submission, by its name in the submission's folder."""

    name: str
    text: str


def compose(
    run: Run,
    place: Local | Hosts | Slurm | Kubernetes,
    verb: str,
    words: tuple[str, ...] = (),
    *,
    unchecked: bool = False,
) -> Submission:
    """The next submission of a Run; nothing is written."""
    number = 1 + max((int(old.name) for old in (run.folder / FOLDER).glob("[0-9]*")), default=0)
    folder = getattr(place, "folder", None)
    directory = Path(place.mount if isinstance(place, Kubernetes) else folder or os.getcwd())
    if isinstance(place, Kubernetes) and run.folder.is_absolute():
        raise WishError(
            f"output is {run.folder}, and the claim is mounted at {place.mount} in each pod",
            f"write output relative to {place.mount}",
        )
    in_pods = isinstance(place, Kubernetes)
    there = IN_PODS if in_pods else directory / run.folder / FOLDER / str(number)
    code = None if in_pods else there / CODE
    return Submission(
        number=number,
        name=_name(run.folder, number),
        launch=shared_plan(run, verb, str(there / protocol.RUN), words, nodes=place.size, code=code or HERE),
        place=place,
        python=getattr(place, "python", None) or sys.executable,
        directory=directory,
        there=there,
        code=code,
        run=dump(run),
        unchecked=unchecked,
    )


def _name(folder: Path, number: int) -> str:
    """A name that SLURM, DNS and people take."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")[:40]
    return f"temper-{plain or 'run'}-{number}".replace("--", "-")


def as_text(submission: Submission) -> str:
    """The value as JSON, one line a field."""
    tree = TypeAdapter(Submission).dump_python(submission, mode="json", exclude={"run"})
    return "\n".join(_lines(tree)) + "\n"


def _lines(tree: dict[str, Any], depth: int = 1) -> Iterator[str]:
    yield "{"
    for number, (key, value) in enumerate(tree.items(), 1):
        comma = "," if number < len(tree) else ""
        inner = list(_lines(value, depth + 1)) if isinstance(value, dict) else [json.dumps(value)]
        inner[0] = f"{' ' * depth}{json.dumps(key)}: {inner[0]}"
        inner[-1] += comma
        yield from inner
    yield " " * (depth - 1) + "}"


def read(file: Path) -> Submission:
    """The value back.

    Raises:
        WishError: there is none, or it is of another version.
    """
    try:
        return TypeAdapter(Submission).validate_json(file.read_bytes())
    except OSError as error:
        raise WishError(
            f"{file} cannot be read on {socket.gethostname()}: {error.strerror}",
            "the run folder must be on a disk that all machines share",
        ) from None
    except ValueError as error:
        raise WishError(f"{file} is no submission: {error}", "submit the run again") from None


def common_files(submission: Submission) -> tuple[File, ...]:
    """What is written for any place: the value itself and the effective Run."""
    return File(JOB, as_text(submission)), File(protocol.RUN, submission.run)


def allowed(submission: Submission) -> dict[str, str]:
    """The variables that are handed on, with their values here.

    Raises:
        WishError: one that the cluster file names is not set.
    """
    missing = [name for name in submission.place.environment if name not in os.environ]
    if missing:
        raise WishError(
            f"the cluster file hands on {', '.join(missing)}, not set here",
            f"export {missing[0]}=..., or take it out of `environment`",
        )
    return {name: os.environ[name] for name in submission.place.environment}


def write(submission: Submission, files: tuple[File, ...], *, values: dict[str, str]) -> None:
    """Write the files and the snapshot of the code; values of variables into a file that only the user may read.

    Raises:
        WishError: the run folder cannot be written.
    """
    folder = submission.here
    try:
        folder.mkdir(parents=True, mode=0o755)
        for file in files:
            (folder / file.name).write_text(file.text, encoding="utf-8")
        if values:
            descriptor = os.open(folder / ENVIRONMENT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as private:
                json.dump(values, private)
        if submission.code is not None:
            for package in PACKAGES:
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(HERE / package, folder / CODE / package, ignore=ignore)
    except OSError as error:
        raise WishError(
            f"the run folder {submission.launch.folder} cannot be written: {error.strerror}",
            "set `output` to a folder you may write to",
        ) from None
