"""A program on its way from the pool to its worker: what to run, under which limits, and what its calls must give."""

from __future__ import annotations

import marshal
from dataclasses import asdict, astuple, dataclass, fields

from ..errors import WishError
from . import codec
from .verdict import Limits, Program, Verdict

_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """Expected values are bytes from here on: the worker compares them and never rebuilds them to do so."""

    source: str
    entry_point: str | None
    test: str | None
    stdin: bytes
    context: str
    expressions: tuple[str, ...]
    expected: tuple[bytes, ...]
    limits: Limits

    @classmethod
    def of(cls, program: Program, limits: Limits) -> Case:
        """Raises WishError when an expected value is not plain data."""
        encoder = codec.Encoder(canonical=True, limit=_LARGEST)
        try:
            expected = tuple(encoder.encode(call.expected) for call in program.calls)
        except codec.NotPlain as error:
            raise WishError(
                f"a test expects what is not plain data: {error}", "expect builtin types"
            ) from None
        except codec.TooLarge as error:
            raise WishError(
                f"a test's expected value is too large: {error}", "compare a digest of it"
            ) from None
        return cls(
            program.source,
            program.entry_point,
            program.test,
            program.stdin,
            program.context,
            tuple(call.expression for call in program.calls),
            expected,
            limits,
        )

    @property
    def form(self) -> str:
        """How it is judged: test, calls or script."""
        if self.test is not None:
            return "test"
        return "calls" if self.expressions else "script"

    def pack(self) -> bytes:
        """As bytes for the worker, which trusts its pool: marshal reads them back in one step."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return marshal.dumps({**values, "limits": astuple(self.limits)})

    @classmethod
    def unpack(cls, data: bytes) -> Case:
        values = marshal.loads(data)
        return cls(**{**values, "limits": Limits(*values["limits"])})


def pack_verdict(verdict: Verdict) -> bytes:
    return marshal.dumps(asdict(verdict))


def unpack_verdict(data: bytes) -> Verdict:
    return Verdict(**marshal.loads(data))
