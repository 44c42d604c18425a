"""One hostile program of the catalogue: its class, its source, and the verdicts that are right for it."""

from __future__ import annotations

import inspect
import platform
from dataclasses import dataclass, replace

from .. import seccomp
from ..verdict import Limits
from .classes import category_of

QUICK = Limits(cpu_seconds=0.3, wall_seconds=1.2, memory_mb=256, processes=32, disk_mb=16)
FILLING = replace(QUICK, cpu_seconds=4.0, wall_seconds=6.0)
"""Filling memory or a disk takes CPU time of its own, more of it on a busy machine."""

HELD = "HELD"
"""What a program prints at its end when all it tried was refused."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One program. Without `allowed` it says itself, by printing HELD and a good end, that what it tried failed."""

    number: int
    """Of its class."""
    name: str
    source: str
    allowed: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    """Allowed besides at level process, where a program may start no process and open no socket."""
    forms: tuple[str, ...] = ("script",)
    """How it is judged: script, calls, test, together or command; each form is a trial of its own."""
    limits: Limits = QUICK
    language: str = "python"
    baited: bool = False
    """Whether it is told in argv what lies out for it: a process, a port, a socket, a file, and further paths."""
    collect: tuple[str, ...] = ()
    """Files it asks to have brought out."""
    seeks_answer: bool = False
    """Whether the expected value is the bait's secret, so that it passes only by finding what it must not."""
    least_cpu: float = 0.0
    """CPU seconds that must have been counted."""

    @property
    def category(self) -> str:
        """The category of its class."""
        return category_of(self.number)


def attack(number: int, name: str, source: str, *allowed: str, **fields: object) -> Attack:
    """An entry; a source that is indented as it stands in the catalogue is moved to the left."""
    return Attack(number, name, _at_the_left(source), allowed, **fields)  # type: ignore[arg-type]


def _at_the_left(source: str) -> str:
    return inspect.cleandoc(source) if source[:1] == "\n" else source


_IMPORTS = "import ctypes, os, signal, socket, sys, time"

_CALL = """
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*words):
    if libc.syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), 'refused')
"""


def refused(number: int, name: str, *statements: str, **fields: object) -> Attack:
    """Each of the statements must raise an OSError (or find nothing and raise one itself)."""
    lines = [_IMPORTS]
    if any("call(" in statement for statement in statements):
        lines.append(_CALL)
    for statement in statements:
        lines.append(f"try:\n    {statement}\nexcept OSError:\n    pass\nelse:\n    sys.exit({statement!r})")
    lines.append(f"print({HELD!r})")
    return Attack(number, name, "\n".join(lines), **fields)  # type: ignore[arg-type]


def system_call(number: int, name: str, *calls: tuple[str | int, ...], **fields: object) -> Attack:
    """Each of the calls, a name and its arguments, must be refused; those this machine does not have are left out."""
    known = [(_number(word), *arguments) for word, *arguments in calls]
    statements = [f"call({', '.join(map(str, call))})" for call in known if call[0] is not None]
    return refused(number, name, *statements, **fields)


def _number(word: str | int) -> int | None:
    if isinstance(word, int):
        return word
    try:
        return seccomp.number_of(word)
    except OSError:  # no level works on such a machine, which is for the pool to say, not for this table
        return None


def on_x86(source: str) -> str:
    """A program about one machine's calls; on another machine there is nothing to try."""
    return source if platform.machine() == "x86_64" else f"print({HELD!r})"
