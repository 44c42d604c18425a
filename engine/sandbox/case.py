"""A program on its way from the pool to its worker: what to run, under which limits, and what its calls must give."""

from __future__ import annotations

import marshal
from dataclasses import astuple, dataclass, fields

from ..errors import WishError
from . import codec
from .verdict import File, Limits, Program, Verdict
from .wishes import check_files, check_program

_LARGEST = 64 << 20
_PLAIN = tuple(f.name for f in fields(Verdict) if f.name != "files")


@dataclass(frozen=True, slots=True)
class Command:
    """An outside program to be started instead of Python source, and how its end is believed."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    record: bytes = b""
    """What it must have written to descriptor 3 before it left; empty for one whose exit code must do."""
    jail: str = "tools"
    """Which of a worker's jails it belongs in: tools, or build, which has more disk."""
    shown: tuple[str, ...] = ()
    """Folders that jail must show: those of its toolchain."""


@dataclass(frozen=True, slots=True)
class Case:
    """Expected values are bytes from here on: the worker compares them and never rebuilds them to do so."""

    source: str = ""
    entry_point: str | None = None
    test: str | None = None
    together: bool = False
    stdin: bytes = b""
    context: str = ""
    expressions: tuple[str, ...] = ()
    expected: tuple[bytes, ...] = ()
    limits: Limits = Limits()
    arguments: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    collect: tuple[str, ...] = ()
    command: Command | None = None

    @classmethod
    def of(cls, program: Program, limits: Limits) -> Case:
        """Raises WishError for a program that cannot be judged as it is (see `wishes`)."""
        check_program(program)
        case = cls(
            source=program.source,
            entry_point=program.entry_point,
            test=program.test,
            together=program.together,
            stdin=program.stdin,
            context=program.context,
            expressions=tuple(call.expression for call in program.calls),
            expected=_expected(program),
            limits=limits,
            arguments=program.arguments,
            files=program.files,
            collect=program.collect,
        )
        case.check_files()
        return case

    def check_files(self) -> None:
        """Raise WishError for a file whose name leads out of the program's folder, or too many of them."""
        check_files((*(file.name for file in self.files), *self.collect), len(self.collect))

    @property
    def form(self) -> str:
        """How it is judged: command, together, test, calls or script."""
        if self.command:
            return "command"
        if self.test is not None:
            return "together" if self.together else "test"
        return "calls" if self.expressions else "script"

    @property
    def jail(self) -> str:
        """Which of a worker's jails it is run in: solution, together, or a command's."""
        if self.command:
            return self.command.jail
        return "together" if self.form == "together" else "solution"

    def pack(self) -> bytes:
        """As bytes for the worker, which trusts its pool: marshal reads them back in one step."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["limits"] = astuple(self.limits)
        values["files"] = [(file.name, file.data, file.executable) for file in self.files]
        values["command"] = astuple(self.command) if self.command else None
        return marshal.dumps(values)

    @classmethod
    def unpack(cls, data: bytes) -> Case:
        values = marshal.loads(data)
        values["limits"] = Limits(*values["limits"])
        values["files"] = tuple(File(*file) for file in values["files"])
        values["command"] = Command(*values["command"]) if values["command"] else None
        return cls(**values)


def _expected(program: Program) -> tuple[bytes, ...]:
    encoder = codec.Encoder(canonical=True, limit=_LARGEST)
    try:
        return tuple(encoder.encode(call.expected) for call in program.calls)
    except codec.NotPlain as error:
        raise WishError(f"a test expects what is not plain data: {error}", "expect builtin types") from None
    except codec.TooLarge as error:
        raise WishError(f"a test's expected value is too large: {error}", "compare a digest of it") from None


def pack_verdict(verdict: Verdict) -> bytes:
    values = {name: getattr(verdict, name) for name in _PLAIN}
    return marshal.dumps((values, [(file.name, file.data) for file in verdict.files]))


def unpack_verdict(data: bytes) -> Verdict:
    values, files = marshal.loads(data)
    return Verdict(**values, files=tuple(File(*file) for file in files))
