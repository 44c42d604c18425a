"""Tests that cannot be split from their program, as the worker sees them: what to do, and a record of each step.

A record is a random token that waits in the channel until its statement is done, then is read and sent back. So the
process holds no token for what it has not come to: leaving early, printing, or finding objects on the heap makes none.
A program written against this very module could still read the channel itself; only a judge apart is safe from that.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field

from . import codec, wire

_TOKEN = 16


@dataclass(slots=True)
class Steps:
    """The worker's side: what is to be done and which records have come."""

    test: str
    calls: list[list]
    """What to do after the test's own statements: ["check", entry point, []] or ["case", class, [method, ...]]."""
    tokens: list[bytes] = field(default_factory=list)
    done: int = 0

    @classmethod
    def of(cls, test: str, entry_point: str | None) -> Steps:
        """Raises SyntaxError when the test is none."""
        body = ast.parse(test).body
        calls = [call for node in body if (call := _call_of(node, entry_point))]
        count = len(body) + sum(max(1, len(names)) for _, _, names in calls)
        return cls(test, calls, [os.urandom(_TOKEN) for _ in range(count)])

    def message(self) -> bytes:
        """All the program's process is sent when it has loaded."""
        frames = [wire.pack(b"T", codec.encode([self.test, self.calls]))]
        return b"".join(frames + [wire.pack(b"K", token) for token in self.tokens])

    def record(self, token: bytes) -> bool:
        """Take one record; whether it is the one that was due."""
        if self.done >= len(self.tokens) or self.tokens[self.done] != token:
            return False
        self.done += 1
        return True

    @property
    def complete(self) -> bool:
        """Whether every step has its record."""
        return self.done == len(self.tokens)


def _call_of(node: ast.stmt, entry_point: str | None) -> list | None:
    if isinstance(node, ast.FunctionDef) and node.name == "check" and entry_point:
        return ["check", entry_point, []]
    if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("TestCase") for base in node.bases):
        names = [m.name for m in node.body if isinstance(m, ast.FunctionDef) and m.name.startswith("test")]
        return ["case", node.name, names] if names else None
    return None
