"""The program's own process: load the source, answer what is asked of it, and tell how it ended.

Whatever this module says to the outside is only data: the program shares its memory and may forge it all. So
nothing here decides a verdict, and no expected value ever comes here.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import importlib
import linecache
import marshal
import os
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import codec, rehearsal, wire
from .streams import as_file

if TYPE_CHECKING:
    from .together import Tests

CHANNEL, JOB = 3, 4
FILE_NAME = "program.py"
_TEXT_LIMIT = 2000
_PRELOADED = (
    *(
        "bisect",
        "collections.abc",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "fractions",
        "functools",
        "hashlib",
    ),
    *("heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "typing"),
)

_getpid, _leave = os.getpid, os._exit


def warm_up(rehearsals: int = rehearsal.TIMES) -> None:
    """Import what programs commonly use and build what a plain `python FILE` would have, once for all forks."""
    for name in _PRELOADED:
        importlib.import_module(name)
    quitter = importlib.import_module("_sitebuiltins").Quitter
    for name in ("exit", "quit"):
        setattr(builtins, name, quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.argv[:] = [FILE_NAME]
    for _ in range(rehearsals):
        rehearse()


def rehearse() -> None:
    """Serve one program as a fork will, to nobody."""
    channel, job = os.open(os.devnull, os.O_RDWR), rehearsed("calls")
    try:
        _Served(_read_job(job), channel).run()
    finally:
        os.close(channel)
        os.close(job)
    del sys.modules["solution"]


def rehearsed(form: str) -> int:
    """The job of a program whose channel may be /dev/null, since it asks nothing of anybody."""
    job = {"source": rehearsal.SOURCE, "calls": rehearsal.CALLS, "ahead": ("f", rehearsal.AHEAD)}
    return as_file(marshal.dumps({**job, "form": form, "arguments": (), "files": []}))


def main() -> int:
    """Run the job waiting on the job descriptor; the process's exit code."""
    job = _read_job(JOB)
    try:
        for name, data, executable in job["files"]:
            _lay(name, data, executable)
    except OSError as error:
        tell_failure(CHANNEL, "load", error)
        return 1
    if job["form"] == "command":
        os.close(JOB)
        os.execve(job["command"][0], list(job["command"]), {**os.environ, **job["environment"]})
    sys.argv += job["arguments"]
    if job["form"] == "script":
        return _run_script(job["source"])
    return _Served(job).run()


def _read_job(job: int) -> dict:
    return marshal.loads(os.pread(job, os.fstat(job).st_size, 0))


def _lay(name: str, data: bytes, executable: bool) -> None:
    folder = os.path.dirname(name)
    if folder:
        os.makedirs(folder, exist_ok=True)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755 if executable else 0o644)
    with open(fd, "wb") as file:
        file.write(data)


def _compile(source: str) -> types.CodeType:
    return compile(source, FILE_NAME, "exec", dont_inherit=True)


def _make_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = FILE_NAME
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module


def tell_failure(fd: int, stage: str, error: BaseException) -> None:
    """Send the names and the text of an exception; its objects stay here."""
    number = error.errno if isinstance(error, OSError) and type(error.errno) is int else None
    names = [c.__name__ for c in type(error).__mro__ if c is not object][:20]
    wire.send(fd, b"X", codec.encode([stage, names, _text_of(error), number]))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_TEXT_LIMIT]
    except BaseException:  # a program's own __str__ may do anything
        return ""


class _Served:
    """A loaded module that evaluates calls: all of a list in order, or one by one for a judge."""

    def __init__(self, job: dict, channel: int = CHANNEL) -> None:
        self.job = job
        self.channel = channel
        self.pid = _getpid()
        self.module = _make_module("solution")
        self.tests = _tests(channel) if job["form"] == "together" else None

    def run(self) -> int:
        stage = "compile"
        try:
            code = _compile(self.job["source"])
            stage = "load"
            exec(code, self.module.__dict__)
        except BaseException as error:
            self._leave_if_copied()
            if stage == "compile" and not isinstance(
                error, MemoryError | RecursionError | ValueError | SyntaxError
            ):
                stage = "load"
            tell_failure(self.channel, stage, error)
            return 1
        self._leave_if_copied()
        if self.tests:
            self._run_tests(self.tests)
        elif self.job["form"] == "calls":
            self._answer_list()
        else:
            self._answer_judge()
        return 0

    def _run_tests(self, tests: Tests) -> None:
        try:
            tests.run(self.module)
        except BaseException as error:
            self._leave_if_copied()
            tell_failure(self.channel, "test", error)

    def _leave_if_copied(self) -> None:
        """A fork the program made must not speak for it."""
        if _getpid() != self.pid:
            _leave(0)

    def _answer_list(self) -> None:
        encoder = codec.Encoder(canonical=True)
        for expression in self.job["calls"]:
            try:
                value = self._evaluate(expression)
                self._leave_if_copied()
                kind, body = b"V", encoder.encode(value)
            except codec.NotPlain as error:
                kind, body = b"O", str(error).encode("utf-8", "replace")
            except codec.TooLarge as error:
                kind, body = b"L", str(error).encode()
            except BaseException as error:
                self._leave_if_copied()
                tell_failure(self.channel, "call", error)
                return
            wire.send(self.channel, kind, body)

    def _evaluate(self, expression: str) -> object:
        tree = ast.parse(expression, "<test>")
        last = tree.body.pop()
        space = dict(self.module.__dict__)
        if tree.body:
            exec(compile(tree, "<test>", "exec", dont_inherit=True), space)
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), "<test>", "exec", dont_inherit=True), space)
            return None
        return eval(compile(ast.Expression(last.value), "<test>", "eval", dont_inherit=True), space)

    def _answer_judge(self) -> None:
        """Serve a judge's requests: C to call a name, N to ask what a name is."""
        inbox, encoder = wire.Inbox(), codec.Encoder(lenient=True)
        wire.send(self.channel, b"R")
        name, ahead = self.job["ahead"]
        for arguments, named in marshal.loads(ahead) if ahead else ():
            self._answer(encoder, name, arguments, named, ())
        while (frame := inbox.wait(self.channel)) is not None:
            if frame.kind == b"N":
                wire.send(self.channel, b"N", codec.encode(self._describe(codec.decode(frame.body))))
            else:
                name, arguments, named = codec.decode(frame.body)
                self._answer(encoder, name, arguments, named, arguments)

    def _answer(
        self, encoder: codec.Encoder, name: str, arguments: list, named: dict, kept: Sequence[object]
    ) -> None:
        """Call and tell: the value, and what the call left in those of its arguments that the test has `kept`."""
        try:
            value = self.module.__dict__[name](*arguments, **named)
            self._leave_if_copied()
            wire.send(self.channel, b"V", encoder.encode([value, [_contents(a) for a in kept]]))
        except codec.NotPlain as error:
            wire.send(self.channel, b"O", str(error).encode("utf-8", "replace"))
        except codec.TooLarge as error:
            wire.send(self.channel, b"L", str(error).encode())
        except BaseException as error:
            self._leave_if_copied()
            tell_failure(self.channel, "call", error)

    def _describe(self, name: object) -> list:
        """What a name of the program is, for a test that uses it: [kind, detail]."""
        if name not in self.module.__dict__:
            return ["absent", None]
        value = self.module.__dict__[name]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", [c.__name__ for c in value.__mro__]]
        if callable(value):
            return ["function", None]
        try:
            codec.encode(value)
        except ValueError:
            return ["other", type(value).__name__]
        return ["value", value]


def _tests(channel: int) -> Tests:
    from .together import Tests  # in its jail this is loaded already

    return Tests(channel)


def _contents(argument: object) -> object:
    """What a call left in an argument it may have changed in place; None for one it cannot have, or not plainly."""
    if type(argument) not in (list, dict, set, bytearray):
        return None
    try:
        codec.encode(argument)
    except ValueError:
        return None
    return argument


def _run_script(source: str) -> int:
    """Run the source as `python FILE` would, to the very end; the end is told before the process leaves."""
    pid = _getpid()
    module = _make_module("__main__")
    path = os.path.join(os.getcwd(), FILE_NAME)
    with contextlib.suppress(UnicodeEncodeError):  # no file holds it; compiling it says why
        _lay(path, source.encode("utf-8", "surrogateescape"), False)
    module.__file__ = path
    sys.path.insert(0, os.getcwd())
    linecache.cache[FILE_NAME] = (len(source), None, source.splitlines(keepends=True), FILE_NAME)
    stage, code = "compile", 0
    try:
        compiled = _compile(source)
        stage = "script"
        exec(compiled, module.__dict__)
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException as error:
        code = 1
        _print_error(error, compiled=stage == "script")
        if _getpid() == pid:
            tell_failure(CHANNEL, stage, error)
    return _finish(code, pid)


def _finish(code: int, pid: int) -> int:
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself does before atexit
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:
        code = code or 120  # as the interpreter does when flushing fails
    if _getpid() == pid:
        wire.send(CHANNEL, b"E", codec.encode(code))
    return code


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _print_error(error: BaseException, *, compiled: bool) -> None:
    """The traceback as the interpreter prints it, without the frames of this file."""
    outer = error.__traceback__ if compiled else None
    try:
        traceback.print_exception(type(error), error, outer.tb_next if outer else None)
    except BaseException:  # the program may have broken sys.stderr or the exception's own methods
        return
