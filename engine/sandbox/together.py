"""Tests that cannot be split from their program: run beside it, statement by statement, each with a record of its own.

A record is a random token that waits in the channel until its statement is done, then is read and sent back. So the
process holds no token for what it has not come to: leaving early, printing, or finding objects on the heap makes none.
A program written against this very module could still read the channel itself; only a judge apart is safe from that.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
import types
import unittest
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


class Tests:
    """The program's side. Made before the program is loaded, so that what it patches afterwards is not used here."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.inbox = wire.Inbox()
        self.pristine = [(place, dict(vars(place))) for place in _places()]

    def run(self, module: types.ModuleType) -> None:
        """Do all steps; an exception of any of them is the caller's to tell."""
        sys.settrace(None)
        sys.setprofile(None)
        wire.send(self.channel, b"R")
        test, calls = codec.decode(self._next())
        for place, attributes in self.pristine:
            _restore(place, attributes)
        space = dict(module.__dict__)
        for node in ast.parse(test, "<test>").body:
            exec(compile(ast.Module([node], []), "<test>", "exec", dont_inherit=True), space)
            self.done()
        for kind, name, methods in calls:
            if kind == "check":
                space["check"](space[name])
                self.done()
            else:
                self._run_case(space[name], methods)

    def _next(self) -> bytes:
        frame = self.inbox.take(self.channel)
        if frame is None:
            raise EOFError("the worker has hung up")
        return frame.body

    def done(self) -> None:
        """Send the record of the step just done."""
        wire.send(self.channel, b"D", self._next())

    def _run_case(self, case: type[unittest.TestCase], methods: list[str]) -> None:
        result = _Records(self)
        unittest.TestSuite([case(method) for method in methods]).run(result)
        if result.failures:
            raise AssertionError(_last_line(result.failures[0]))
        if result.errors:
            raise RuntimeError(_last_line(result.errors[0]))


class _Records(unittest.TestResult):
    """Sends a record for each test method that came to a good end."""

    def __init__(self, tests: Tests) -> None:
        super().__init__()
        self.tests = tests
        self.failfast = True

    def addSuccess(self, test: unittest.TestCase) -> None:
        """One method has passed."""
        self.tests.done()

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        """The test's own wish, so as good as passed."""
        self.tests.done()

    def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
        """It failed as it should."""
        self.tests.done()


def _places() -> list[types.ModuleType | type]:
    """What a test leans on and a program may have patched: builtins, and unittest with its classes."""
    modules = [builtins, unittest, unittest.case, unittest.suite, unittest.result]
    classes = [
        v for m in modules[1:] for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__
    ]
    return [*modules, *classes]


def _restore(place: types.ModuleType | type, attributes: dict) -> None:
    for name, value in attributes.items():
        if vars(place).get(name) is not value:
            setattr(place, name, value)


def _last_line(trouble: tuple[unittest.TestCase, str]) -> str:
    return f"{trouble[0].id().rpartition('.')[2]}: {trouble[1].strip().splitlines()[-1]}"
