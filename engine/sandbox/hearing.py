"""What a program's process says on its channel, and what that decides: one listener for each form of judgement."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from . import codec, wire
from .case import Case
from .judge import read_failure
from .outcome import Seen
from .steps import Steps
from .verdict import one_line

Decision = tuple[str, str]
"""A verdict's name and detail."""


class AskTheJudge(Exception):
    """An answer is not, to the byte, the expected one: only the test itself can tell whether it will do."""


class Listener(Protocol):
    """Hears one program."""

    reply: bytes
    """What is to be said to the program now."""

    def hear(self, frame: wire.Frame) -> Decision | None:
        """What `frame` decides, if it does. Raises AskTheJudge."""


def listener(case: Case, seen: Seen, due: tuple[bytes, ...]) -> Listener:
    """The listener for the form of `case`; `due` are the answers with which a test that only compares passes."""
    if case.form == "calls":
        return Values(case, seen)
    if case.form == "together" and case.test is not None:
        return Records(Steps.of(case.test, case.entry_point), seen)
    return Answers(due) if due else End(seen)


class Answers:
    """Of a test that does nothing but compare."""

    def __init__(self, due: tuple[bytes, ...]) -> None:
        self.reply = b""
        self.due = deque(due)
        self.greeted = False

    def hear(self, frame: wire.Frame) -> Decision | None:
        """As expected to the byte, or the judge is asked."""
        if frame.kind == b"R" and not frame.body and not self.greeted:
            self.greeted = True  # all that is said is kept for the judge, so this is heard once
            return None
        if frame.kind != b"V" or frame.body != self.due[0]:
            raise AskTheJudge
        self.due.popleft()
        return None if self.due else ("passed", "")


class Values:
    """Of calls whose expected values are known here."""

    def __init__(self, case: Case, seen: Seen) -> None:
        self.reply = b""
        self.case, self.seen = case, seen
        self.answered = 0

    def hear(self, frame: wire.Frame) -> Decision | None:
        """A value, or why there is none."""
        text = frame.body[:200].decode("utf-8", "replace")
        if frame.kind == b"X":
            failure = self.seen.failure = read_failure(frame.body)
            return (failure.verdict(), self._named(failure.describe())) if failure else None
        if frame.kind == b"V":
            return self._compare(frame.body)
        if frame.kind == b"O":
            return "wrong", self._named(f"not plain data: {text}")
        if frame.kind == b"L":
            return "output_limit", self._named(text)
        return "wrong", "the program broke the protocol: an unknown answer"

    def _compare(self, got: bytes) -> Decision | None:
        expected = self.case.expected[self.answered]
        if not codec.same(expected, got):
            return "wrong", self._named(f"gave {codec.shown(got)}, expected {codec.shown(expected)}")
        self.answered += 1
        return ("passed", "") if self.answered == len(self.case.expressions) else None

    def _named(self, text: str) -> str:
        """`text` with the call it is about, when the program had got as far as calls."""
        if self.seen.failure and self.seen.failure.stage != "call":
            return text
        return one_line(f"{one_line(self.case.expressions[self.answered], 120)}: {text}")


class Records:
    """Of a test beside its program: it is ready for the test, or one more step is done."""

    def __init__(self, steps: Steps, seen: Seen) -> None:
        self.reply = b""
        self.steps, self.seen = steps, seen
        self.ready = False

    def hear(self, frame: wire.Frame) -> Decision | None:
        """The record that is due, or the end of all hope."""
        self.reply = b""
        if frame.kind == b"X":
            self.seen.failure = read_failure(frame.body)
        elif frame.kind == b"R" and not self.ready:
            self.ready, self.reply = True, self.steps.message()
        elif frame.kind != b"D" or not self.steps.record(frame.body):
            return "wrong", "the program broke the protocol: a record that was not due"
        elif self.steps.complete:
            return "passed", ""
        return None


class End:
    """Of a script, which tells with which code it leaves, or of what it died."""

    def __init__(self, seen: Seen) -> None:
        self.reply = b""
        self.seen = seen

    def hear(self, frame: wire.Frame) -> Decision | None:
        """Nothing is decided here: how the process ends must agree."""
        if frame.kind == b"X":
            self.seen.failure = read_failure(frame.body)
        elif frame.kind == b"E" and len(frame.body) < 64:
            self.seen.ended = codec.decode(frame.body)
        return None
