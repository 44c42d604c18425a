"""Tests that cannot be split from their program: run beside it, statement by statement, each with a record of its own.

How a record works is told in `steps`. This module is loaded only where such tests are run: every page it takes makes
each fork dearer.
"""

from __future__ import annotations

import ast
import builtins
import sys
import types
import unittest

from . import codec, wire

_MODULES = ("builtins", "unittest", "unittest.case", "unittest.suite", "unittest.result")
_MARKS = ("__unittest_skip__", "__unittest_expecting_failure__")


class Tests:
    """The program's side. Made before the program is loaded, so that what it patches afterwards is not used here."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.inbox = wire.Inbox()
        self.pristine = [(place, dict(vars(place))) for place in _places()]
        self.modules = {name: sys.modules[name] for name in _MODULES}

    def run(self, module: types.ModuleType) -> None:
        """Do all steps; an exception of any of them is the caller's to tell."""
        sys.settrace(None)
        sys.setprofile(None)
        wire.send(self.channel, b"R")
        test, calls = codec.decode(self._next())
        sys.modules.update(self.modules)
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
        result = _Records(self, {method for method in methods if _is_marked(case, method)})
        unittest.TestSuite([case(method) for method in methods]).run(result)
        if result.failures:
            raise AssertionError(_last_line(result.failures[0]))
        if result.errors:
            raise RuntimeError(_last_line(result.errors[0]))


class _Records(unittest.TestResult):
    """Sends a record for each test method that came to a good end."""

    def __init__(self, tests: Tests, marked: set[str]) -> None:
        super().__init__()
        self.tests = tests
        self.marked = marked
        """Methods that the test itself says are to be skipped, or to fail."""
        self.failfast = True

    def addSuccess(self, test: unittest.TestCase) -> None:
        """One method has passed."""
        self.tests.done()

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        """As good as passed where it is the test's own wish; a program may ask for it too."""
        self._accept(test, f"skipped while it ran: {reason}")

    def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
        """It failed as it should, if the test says so."""
        self._accept(test, "failed, and was called an expected failure while it ran")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        """It was to fail."""
        self.failures.append((test, "passed, and was to fail"))
        self.stop()

    def _accept(self, test: unittest.TestCase, trouble: str) -> None:
        if getattr(test, "_testMethodName", None) in self.marked:
            self.tests.done()
        else:
            self.failures.append((test, trouble))
            self.stop()


def _is_marked(case: type[unittest.TestCase], method: str) -> bool:
    places = (case, getattr(case, method))
    return any(getattr(place, mark, False) for place in places for mark in _MARKS)


def _places() -> list[types.ModuleType | type]:
    """What a test leans on and a program may have patched: builtins, and unittest with its classes."""
    modules = [sys.modules[name] for name in _MODULES]
    classes = [
        v for m in modules[1:] for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__
    ]
    return [*modules, *classes]


def _restore(place: types.ModuleType | type, attributes: dict) -> None:
    if place is not builtins:  # where programs may add names of their own
        for name in [name for name in vars(place) if name not in attributes]:
            if (
                sys.modules.get(f"{place.__name__}.{name}") is not vars(place)[name]
            ):  # as unittest.mock, once imported
                delattr(place, name)
    for name, value in attributes.items():
        if vars(place).get(name) is not value:
            setattr(place, name, value)


def _last_line(trouble: tuple[unittest.TestCase, str]) -> str:
    return f"{trouble[0].id().rpartition('.')[2]}: {trouble[1].strip().splitlines()[-1]}"
