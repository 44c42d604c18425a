"""The judge's process: runs each test's `check` against a proxy of the candidate, which lives in another jail.

What comes over the channel was written by a stranger: it is rebuilt as plain data by a bounded decoder, or the verdict
is `wrong`. The judge is itself jailed, limited and killable, and it alone says whether the test passed.
"""

from __future__ import annotations

import array
import builtins
import marshal
import os
import random
import signal
import socket
import sys
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from . import codec, kernel, wire
from .ahead import Ahead, same_call
from .verdict import Failure, Limits, one_line

JUDGE_LIMITS = Limits(cpu_seconds=10.0, memory_mb=1280, processes=16, disk_mb=8)
"""What one trial may use; a test that takes more is at fault itself, or was handed values made to hurt it."""
_LARGE = 1 << 20
"""Bytes of answers after which the memory they took is given back; a judge sits for a thousand trials."""
NOT_PLAIN = "the test hands over what is not plain data"
"""How the detail begins of a verdict on a test that a judge apart cannot hold."""
_LINK = 3
_RECURSION = sys.getrecursionlimit()


def judging_seconds(limits: Limits) -> float:
    """CPU time a test may take: as much as its program where that is more, since large answers cost both of them."""
    return max(JUDGE_LIMITS.cpu_seconds, limits.cpu_seconds)


class _Settled(BaseException):
    """The verdict is known; no test's `except Exception` may catch it."""


@dataclass(slots=True)
class Ruling:
    """What the judge tells the worker. `gone`: the candidate's process ended; how, the worker knows better."""

    verdict: str
    detail: str = ""


def main() -> int:
    """Hold one trial after another, until the worker closes its end of the link."""
    link = socket.socket(fileno=_LINK)
    while rights := _next_trial(link):
        job, channel = rights
        with open(job, "rb") as file:
            trial = Trial(marshal.loads(file.read()), channel)
        # Nothing is installed for this signal: a test over its time ends the process, and the worker sees by what.
        signal.setitimer(signal.ITIMER_PROF, trial.job["cpu_seconds"])
        random.seed()
        ruling = trial.run()
        signal.setitimer(signal.ITIMER_PROF, 0)
        link.send(codec.encode([ruling.verdict, ruling.detail]))
        os.close(channel)
        sys.setrecursionlimit(_RECURSION)
        sys.modules.pop("test", None)
        large = trial.heard > _LARGE
        del trial
        if large:
            kernel.give_back_memory()
    return 0


def _next_trial(link: socket.socket) -> tuple[int, int] | None:
    """The descriptors of the next trial's job and of the channel to its program."""
    data, ancillary, _, _ = link.recvmsg(16, 64)
    if not data:
        return None
    job, channel = array.array("i", ancillary[0][2])
    return job, channel


class _Names(dict):
    """The test's builtins; a name neither the test nor Python knows is asked of the candidate's process."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(builtins.__dict__)
        self.trial = trial

    def __missing__(self, name: str) -> object:
        self[name] = value = self.trial.look_up(name)
        return value


class Trial:
    """One test of one program."""

    def __init__(self, job: dict, channel: int) -> None:
        self.job = job
        self.channel = channel
        self.inbox = wire.Inbox(buffer=bytearray(job["said"]))
        self.heard = 0
        """Bytes the program has said."""
        self.ahead: deque[Ahead] = deque(marshal.loads(job["ahead"]) if job["ahead"] else ())
        """Calls the program answers unasked; their answers are on the way, in this order."""
        self.helpers: dict | None = None
        self.asked = False
        """Whether the program was asked anything: what the test makes of its answers is not the sandbox's fault."""
        self.ruling: Ruling | None = None
        self.raised: dict[int, tuple[BaseException, Failure]] = {}
        """Exceptions the candidate raised, by id: one that escapes the test is the candidate's, not the test's."""
        self.classes: dict[tuple[str, ...], type[Exception]] = {}

    def run(self) -> Ruling:
        try:
            self._start()
            module = types.ModuleType("test")
            sys.modules["test"] = module
            space = module.__dict__
            space["__builtins__"] = _Names(self)
            check = self._define(space)
            check(self._proxy(self.job["entry_point"]))
            if self.ahead:
                self._settle("again", "the test did not make the calls that were read off it")
        except _Settled:
            pass
        except BaseException as error:
            return self.ruling or self._rule_on(error)
        return self.ruling or Ruling("passed")

    def _start(self) -> None:
        frame = self._receive()
        if frame.kind == b"X":
            failure = _failure(frame.body)
            self._settle(failure.verdict(), failure.describe())

    def _define(self, space: dict) -> Callable[..., object]:
        try:
            exec(_compiled(self.job["test"], "<test>"), space)
            return space["check"]
        except Exception as error:
            if self.asked:
                self.ruling = self.ruling or self._rule_on(error)
                raise _Settled from None
            self._settle("infra", f"the test cannot be loaded: {type(error).__name__}: {error}")

    def _load_helpers(self) -> dict:
        """What the context defines; loaded only for a test that names what it does not define itself."""
        space: dict = {}
        try:
            exec(_compiled(self.job["context"], "<context>"), space)
        except Exception as error:
            self._settle("infra", f"the test's context cannot be loaded: {type(error).__name__}: {error}")
        space[self.job["entry_point"]] = self._proxy(self.job["entry_point"])
        return space

    def _rule_on(self, error: BaseException) -> Ruling:
        known = self.raised.get(id(error))
        if known:
            return Ruling(known[1].verdict(), known[1].describe())
        text = _text(error)
        return Ruling("wrong", one_line(f"{type(error).__name__}{text and f': {text}'}{_place(error)}"))

    def _settle(self, verdict: str, detail: str) -> NoReturn:
        self.ruling = self.ruling or Ruling(verdict, one_line(detail))
        raise _Settled

    def _receive(self) -> wire.Frame:
        try:
            frame = self.inbox.wait(self.channel)
        except codec.Malformed as error:
            self._settle("wrong", f"the program broke the protocol: {error}")
        if frame is None:
            self._settle("gone", "")
        self.heard += len(frame.body)
        return frame

    def _ask(self, kind: bytes, question: object) -> wire.Frame:
        if self.ruling:
            raise _Settled
        if self.ahead:
            self._settle("again", "the test asks what was not read off it")
        try:
            body = codec.Encoder(lenient=True).encode(question)
        except ValueError as error:
            if self.asked:  # and so may hand back an answer, which the program chose
                large = isinstance(error, codec.TooLarge)
                self._settle(
                    "output_limit" if large else "wrong", f"an answer cannot be handed back: {error}"
                )
            self._settle("infra", f"{NOT_PLAIN}: {error}")
        self.asked = True
        try:
            wire.send(self.channel, kind, body)
        except OSError:
            self._settle("gone", "")
        return self._receive()

    def _decode(self, body: bytes) -> Any:
        try:
            return codec.decode(body)
        except codec.Malformed as error:
            self._settle("wrong", f"the program broke the protocol: {error}")

    def _proxy(self, name: str) -> Callable[..., object]:
        def candidate(*arguments: object, **named: object) -> object:
            return self._call(name, list(arguments), named)

        candidate.__name__ = candidate.__qualname__ = name
        return candidate

    def _call(self, name: str, arguments: list, named: dict) -> object:
        if self.ahead and name == self.job["entry_point"] and same_call(arguments, named, self.ahead[0]):
            self.ahead.popleft()
            self.asked = True
            frame, arguments = self._receive(), []
        else:
            frame = self._ask(b"C", [name, arguments, named])
        if frame.kind == b"V":
            answer = self._decode(frame.body)
            if type(answer) is not list or len(answer) != 2 or type(answer[1]) is not list:
                self._settle("wrong", "the program broke the protocol: an answer of the wrong shape")
            _apply_changes(arguments, answer[1])
            return answer[0]
        if frame.kind == b"X":
            failure = _failure(frame.body)
            error = self._rebuild(failure)
            self.raised[id(error)] = (error, failure)
            raise error
        if frame.kind == b"O":
            what = frame.body[:200].decode("utf-8", "replace")
            self._settle("wrong", f"{name} returned what is not plain data: {what}")
        if frame.kind == b"L":
            self._settle("output_limit", f"{name}: {frame.body[:200].decode('utf-8', 'replace')}")
        self._settle("wrong", "the program broke the protocol: an unknown answer")

    def _rebuild(self, failure: Failure) -> BaseException:
        """The exception as the test may expect it: the nearest builtin class, under the program's own name."""
        if "Exception" not in failure.classes or failure.verdict() in ("memory_limit", "incomplete"):
            self._settle(failure.verdict(), failure.describe())
        return self._exception_class(failure.classes)(failure.text)

    def _exception_class(self, names: tuple[str, ...]) -> type[Exception]:
        for name in names:
            known = getattr(builtins, name, None)
            if not (isinstance(known, type) and issubclass(known, Exception)):
                continue
            if issubclass(known, UnicodeError | BaseExceptionGroup):
                known = (
                    ValueError if issubclass(known, UnicodeError) else Exception
                )  # theirs take more than a text
            if known.__name__ == names[0]:
                return known
            return self.classes.setdefault(names, type(names[0], (known,), {}))
        return Exception

    def look_up(self, name: str) -> object:
        """What `name` is: the trusted context's own, else the program's function by proxy, value, or module."""
        if self.helpers is None:
            self.helpers = self._load_helpers()
        if name in self.helpers:
            return self.helpers[name]
        frame = self._ask(b"N", name)
        answer = self._decode(frame.body) if frame.kind == b"N" else None
        kind, detail = answer if type(answer) is list and len(answer) == 2 else ("absent", None)
        if kind == "function":
            return self._proxy(name)
        if kind == "value":
            return detail
        if kind == "module" and type(detail) is str and detail.partition(".")[0] in sys.stdlib_module_names:
            return __import__(detail, fromlist=["_"])
        if kind == "exception" and type(detail) is list and all(type(d) is str for d in detail):
            return self._exception_class(tuple(detail))
        raise KeyError(name)


@lru_cache(maxsize=256)
def _compiled(source: str, name: str) -> types.CodeType:
    """A test's text is the same for all programs that are asked for the same thing."""
    return compile(source, name, "exec", dont_inherit=True)


def _failure(body: bytes) -> Failure:
    return read_failure(body) or Failure("call", ("Exception",), "an exception that cannot be read")


def read_failure(body: bytes) -> Failure | None:
    """A failure as a program's process told it; None when it is not one."""
    if len(body) > 1 << 16:
        return None
    try:
        match codec.decode(body):
            case [str(stage), list(names), str(text), None | int() as number] if all(
                type(n) is str for n in names
            ):
                return Failure(stage, tuple(names), text, number)
    except codec.Malformed:
        pass
    return None


def _apply_changes(arguments: list, changed: list) -> None:
    """Give the test's own objects the contents the call left in its copies."""
    for mine, theirs in zip(arguments, changed, strict=False):
        if type(mine) is not type(theirs) or mine == theirs:
            continue
        if type(mine) is list or type(mine) is bytearray:
            mine[:] = theirs
        elif type(mine) is dict or type(mine) is set:
            mine.clear()
            mine.update(theirs)


def _text(error: BaseException) -> str:
    """What an error says; nothing where it has no text, as one that holds a program's int of 5,000 digits."""
    try:
        return str(error)
    except Exception:
        return ""


def _place(error: BaseException) -> str:
    """The line of the test an error came from."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<test>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line} of the test)" if line else ""
