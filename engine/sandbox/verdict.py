"""What is run, under which limits, and what came of it: the values that cross the sandbox's door."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ..errors import WishError

VERDICTS = (
    "passed",
    "wrong",
    "compile_error",
    "runtime_error",
    "cpu_limit",
    "wall_limit",
    "memory_limit",
    "output_limit",
    "process_limit",
    "disk_limit",
    "signal",
    "incomplete",
    "denied",
    "infra",
)

LEVELS = ("full", "user", "process")
"""Isolation, strongest first: namespaces with a cgroup, namespaces alone, landlock and seccomp alone."""

MODES = ("reused", "fresh")
"""A jail cleaned between programs, or namespaces of its own for each."""

OUTPUT_CAP_FACTOR = 128
"""A program may print this many times what is kept of its output before it is stopped (64 kB kept: 8 MB)."""

MOST_WALL = 20.0
"""Waiting for a CPU, or for a judge at work, does not count as wall time, up to this many times the limit."""


MOST_FILES = 64
"""Most files that can be collected from one program."""

_MOST = {"cpu_seconds": 86_400, "wall_seconds": 86_400, "memory_mb": 1 << 24}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. CPU time decides; wall time only ends programs that sleep."""

    cpu_seconds: float = 3.0
    wall_seconds: float = 9.0
    memory_mb: int = 1024
    """Of all its processes together, on top of some 50 MB for the interpreter it starts from."""
    output_kb: int = 64
    """Kept of stdout and of stderr; a program that prints 128 times as much is stopped (`output_limit`)."""
    processes: int = 64
    """Processes and threads together, the program's first one included."""
    disk_mb: int = 32
    """Size of the scratch file system that serves as working directory, /tmp and /dev/shm."""

    def __post_init__(self) -> None:
        """Raise WishError for what no clock or kernel takes."""
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                raise WishError(
                    f"{name} of a program is {value}",
                    f"give a number above 0, at most {most:,}",
                )


@dataclass(frozen=True, slots=True)
class Call:
    """A value test: `expression` is evaluated beside the program, its value is compared outside."""

    expression: str
    """One expression, or a few statements ending in one, in the program's namespace."""
    expected: object
    """Plain data (None, bool, int, float, str, bytes, list, tuple, dict, set); never sent to the program."""


@dataclass(frozen=True, slots=True)
class File:
    """A file given to a program or brought back from it. `name` is relative to the program's folder."""

    name: str
    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A program and how it is judged: by `test`, by `calls`, or (neither) as a script that must end well."""

    source: str
    entry_point: str | None = None
    test: str | None = None
    """HumanEval's form: source that defines `check(candidate)`; runs in the judge, `candidate` is a proxy."""
    calls: tuple[Call, ...] = ()
    stdin: bytes = b""
    context: str = ""
    """Trusted source (the benchmark's prompt) whose helper functions the test may use inside the judge. Without
    it a name the test does not define is asked of the tested process, which may answer as it likes."""
    together: bool = False
    """Run `test` in the program's own process, statement by statement: for tests that need its classes, or patch
    it. Weaker than the judge apart, since a program that knows this sandbox could answer for the test."""
    language: str = "python"
    arguments: tuple[str, ...] = ()
    """What a script finds after its own name in argv."""
    files: tuple[File, ...] = ()
    """Laid into the program's folder before it starts."""
    collect: tuple[str, ...] = ()
    """Names of files to bring back from the program's folder after its end; a name that is no plain file is left."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one program. `detail` is one line: which test, which error, which limit."""

    name: str
    detail: str = ""
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    """Largest resident set of one of its processes, the warm interpreter it started from included."""
    stdout: str = ""
    stderr: str = ""
    isolation: str = "none"
    form: str = ""
    """How it was judged: calls (values compared outside), test (in a judge apart), together (in the program's own
    process), script (it came to its end) or command (another language)."""
    files: tuple[File, ...] = ()
    """What was to be collected and was there."""
    toolchain: str = ""
    """Version of the compiler or interpreter of a program that is not Python."""

    @property
    def passed(self) -> bool:
        return self.name == "passed"


_ERRNO_VERDICTS = {
    errno.EAGAIN: "process_limit",
    errno.ENOMEM: "memory_limit",
    errno.ENOSPC: "disk_limit",
    errno.EDQUOT: "disk_limit",
    errno.EFBIG: "disk_limit",
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EROFS: "denied",
    errno.ENETUNREACH: "denied",
    errno.EAFNOSUPPORT: "denied",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that escaped the program, as its process told it: names and text only."""

    stage: str
    """compile, load (running the module), call (a test's call), test (one that runs beside the program) or script."""
    classes: tuple[str, ...]
    """Names of the exception's class and its bases, most derived first."""
    text: str = ""
    errno: int | None = None

    def verdict(self) -> str:
        if "MemoryError" in self.classes:
            return "memory_limit"
        if self.stage == "compile":
            return "compile_error"
        if "SystemExit" in self.classes:
            return "incomplete"
        if "OSError" in self.classes and self.errno in _ERRNO_VERDICTS:
            return _ERRNO_VERDICTS[self.errno]
        if self.classes[:1] == ("RuntimeError",) and "start new thread" in self.text:
            return "process_limit"
        if self.stage in ("script", "test") and "AssertionError" in self.classes:
            return "wrong"
        return "runtime_error"

    def describe(self) -> str:
        name = self.classes[0] if self.classes else "exception"
        return one_line(f"{name}: {self.text}" if self.text else name)


def one_line(text: str, limit: int = 300) -> str:
    """`text` cut to one printable line."""
    flat = " ".join(text[: limit * 4].split())
    flat = "".join(c if c.isprintable() else "\ufffd" for c in flat)
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
