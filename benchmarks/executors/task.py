"""What passes between a benchmark and the process that holds a judge: programs, settings, verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PASSED, FAILED, TIMED_OUT = "P", "F", "T"


class Unavailable(Exception):
    """This judge is not installed, or cannot do this workload; the text says which."""


@dataclass(frozen=True, slots=True)
class Task:
    """A program with its test. Without a test it is a script that must end well."""

    source: str
    test: str = ""
    """Defines `check(candidate)`."""
    entry_point: str = ""
    context: str = ""
    """The prompt, for judges whose test runs apart from the program and needs the prompt's helpers."""
    kind: str = "right"
    """right, wrong, loop, or unknown: what the verdict should be."""

    def text(self) -> str:
        """Program, test and the call of the test as one text, for judges that run all in one process."""
        return f"{self.source}\n{self.test}\ncheck({self.entry_point})\n" if self.test else self.source


@dataclass(frozen=True, slots=True)
class Setting:
    """What a judge is to do."""

    tasks: list[Task]
    order: list[int]
    """The programs to run, as indices of `tasks`: a program that runs often is held once."""
    workers: int = 2
    limit_seconds: float = 3.0
    packages: tuple[str, ...] = ()
    """What the programs import beyond the standard library; judges that can import it ahead do."""
    ballast_mb: int = 0
    """Memory that the process holds before its judge starts, as a trainer or a harness with a model would."""
    peers: str = ""
    """Folder with what others wrote; empty: not given."""

    def write(self, file: Path) -> None:
        """Put it where `read` finds it."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(file: Path) -> Setting:
    """The setting that was written; a text that occurs often is held once, as a harness holds its tests."""
    tree = json.loads(file.read_text(encoding="utf-8"))
    held: dict[str, str] = {}
    tree["tasks"] = [
        Task(**{name: held.setdefault(text, text) for name, text in task.items()}) for task in tree["tasks"]
    ]
    tree["packages"] = tuple(tree["packages"])
    return Setting(**tree)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One verdict (P, F or T) and the seconds from hand-over to verdict, 0 where a judge does not tell."""

    verdict: str
    seconds: float = 0.0


Judge = Callable[[Sequence[Task]], list[Outcome]]


@dataclass(frozen=True, slots=True)
class Open:
    """A judge that stands ready."""

    judge: Judge
    single: Judge | None = None
    """For a judge that shows no seconds when it runs many: the same one by one, from as many threads."""
    note: str = ""
    """Version, isolation."""
    shares: bool = False
    """Programs run in forks of this process, so they import what it can."""
