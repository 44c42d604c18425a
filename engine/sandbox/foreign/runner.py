"""A program in another language than Python: compiled, run as a command, and its end put in words."""

from __future__ import annotations

import hmac
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import WishError
from ..case import Case, Command
from ..outer.engines import ENGINES
from ..verdict import File, Limits, Program, Verdict, one_line
from .builds import Builds, key_of
from .completion import Tested
from .languages import Language, Signs, find
from .toolchain import Toolchain, python, toolchain_of

_LAST_WORDS = 4096
"""Of what a program printed at its end, this much is searched for its language's messages."""
_OVER_LIMIT = ("cpu_limit", "wall_limit", "memory_limit", "output_limit", "process_limit", "disk_limit")
_SECRET_LETTERS = 24
_NOT_STARTED = 70
_COMMON_SIGNS = {
    "disk_limit": "No space left on device|File too large",
    "process_limit": r"Resource temporarily unavailable|unable to create (?:new )?native thread",
}


class Foreign:
    """Runs other languages' programs on a pool's workers, and keeps what their compilers made."""

    def __init__(self, level: str, run_case: Callable[[Case], Verdict]) -> None:
        self.level = level
        self.run_case = run_case
        self.builds = Builds()
        self._key = os.urandom(32)
        self._shown: tuple[str, ...] = ()
        self._growing = threading.Lock()

    def run(self, program: Program, limits: Limits) -> Verdict:
        """One program's verdict. Raises WishError for a language or a wish that cannot be met here."""
        row = find(program.language)
        _refuse(program, self.level)
        toolchain = toolchain_of(program.language)
        with self._growing:  # several threads run programs: none may lose the folders another has added
            self._shown = tuple(dict.fromkeys((*self._shown, *toolchain.folders)))
        job = _Job.of(program, row, toolchain, limits, self._secret(program))
        verdict = self._run(job, row.limits)
        form = "command" if program.test is None else "together"
        return replace(verdict, form=form, toolchain=toolchain.version)

    def _secret(self, program: Program) -> str:
        """What a test writes at its end: the same for the same program, so that it need be compiled only once."""
        text = "\0".join((program.language, program.source, program.test or ""))
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256")
        return digest.hexdigest()[:_SECRET_LETTERS]

    def _run(self, job: _Job, compiler_limits: Limits) -> Verdict:
        program, files = job.program, job.sources
        if job.row.compile:
            compiled = self._compiled(job, compiler_limits)
            if not compiled.passed:
                return compiled
            files = tuple(replace(file, executable=True) for file in compiled.files)
        command = Command(
            (*job.filled(job.row.run), *program.arguments),
            (("PATH", job.path),),
            job.record,
            "tools",
            self._shown,
        )
        files = (*program.files, *files)
        limits = replace(job.limits, processes=max(job.limits.processes, job.row.processes))
        case = Case(stdin=program.stdin, limits=limits, files=files, collect=program.collect, command=command)
        case.check_files()
        return _explained(self.run_case(case), job.row.signs, tested=program.test is not None)

    def _compiled(self, job: _Job, limits: Limits) -> Verdict:
        """The compiler's verdict, with what it built."""
        files = (*job.program.files, *job.sources)
        environment = (("PATH", job.path), *((n, job.fill(t)) for n, t in job.row.environment.items()))
        command = Command(job.filled(job.row.compile), environment, b"", "build", self._shown)
        case = Case(files=files, collect=job.row.built, limits=limits, command=command)
        case.check_files()
        key = key_of(job.program.language, job.toolchain.version, command.argv, files)
        return self.builds.get(key, lambda: _compiler_verdict(self.run_case(case), job.row))


@dataclass(frozen=True, slots=True)
class _Job:
    """A program with its test behind it, and what the braces of its language's row stand for."""

    program: Program
    row: Language
    toolchain: Toolchain
    limits: Limits
    record: bytes
    sources: tuple[File, ...]
    values: dict[str, str]

    @classmethod
    def of(cls, program: Program, row: Language, toolchain: Toolchain, limits: Limits, secret: str) -> _Job:
        tested = Tested(program.source)
        if program.test is not None:
            tested = row.completion(program.source, program.test, secret)
        values = {
            "source": row.source,
            "python": python(),
            "stock": toolchain.stock or "/tmp/stock",
            "heap_mb": str(_heap_mb(limits.memory_mb)),
            **toolchain.tools,
            **row.values(tested.source),
        }
        source = File(values["source"], tested.source.encode("utf-8", "surrogateescape"))
        sources = (source, *tested.files, *row.beside(tested.source))
        record = b"" if program.test is None else secret.encode()
        return cls(program, row, toolchain, limits, record, sources, values)

    def fill(self, text: str) -> str:
        """`text` with its braces filled."""
        return text.format_map(self.values)

    def filled(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Each of `words` with its braces filled."""
        return tuple(map(self.fill, words))

    @property
    def path(self) -> str:
        """Where the program finds commands: next to its own tools, then the system's."""
        folders = [os.path.dirname(tool) for tool in self.toolchain.tools.values()]
        return ":".join(dict.fromkeys((*folders, "/usr/local/bin", "/usr/bin", "/bin")))


def _heap_mb(memory_mb: int) -> int:
    """What a run time's heap may take of a limit, so that it says itself when it gives out, not the kernel."""
    return max(memory_mb // 2, memory_mb - memory_mb // 8 - 96)


def _refuse(program: Program, level: str) -> None:
    """Raise WishError for a wish that no language but Python can be granted, or not at this level."""
    language = program.language
    if level in ENGINES:
        raise WishError(
            f"a program in {language} cannot be run in {level}: outer engines run Python only",
            "leave the engine out: the sandbox's own levels run every language",
        )
    if level == "process":
        raise WishError(
            f"a program in {language} starts other programs, which isolation level process forbids",
            "use a machine that grants level user or full (temper sandbox probe says what is missing)",
        )
    if program.calls:
        raise WishError(f"a program in {language} cannot be judged by calls", "give it a test, or stdin")
    if program.context:
        raise WishError(
            f"the test of a program in {language} takes no context", "put what it needs into the source"
        )


def _compiler_verdict(verdict: Verdict, row: Language) -> Verdict:
    """A compiler's end as the verdict of the program it was given."""
    built = {file.name for file in verdict.files}
    verdict = _over_limits(verdict)
    if verdict.name == "infra" or (verdict.passed and built.issuperset(row.built)):
        return verdict
    verdict = replace(verdict, files=())
    if verdict.name in _OVER_LIMIT:
        return replace(verdict, detail=f"the compiler: {verdict.detail}")
    if verdict.exit_code == _NOT_STARTED and not (verdict.stderr or verdict.stdout):
        return replace(verdict, name="infra", detail="the compiler could not be started in its jail")
    said = verdict.stderr or verdict.stdout
    wrong = _shown(row.signs.complaint, said) or _likely(said, "error", "Error") or verdict.detail
    return replace(verdict, name="compile_error", detail=one_line(wrong), stderr=said, stdout="")


def _over_limits(verdict: Verdict) -> Verdict:
    """With what any program says that is refused room on its disk, or a process."""
    if verdict.signal == signal.SIGXFSZ:
        return replace(verdict, name="disk_limit", detail="a file as large as the whole disk")
    if verdict.name in ("runtime_error", "signal"):
        for name, sign in _COMMON_SIGNS.items():
            if found := re.search(sign, verdict.stderr[-_LAST_WORDS:]):
                return replace(verdict, name=name, detail=found[0])
    return verdict


def _explained(verdict: Verdict, signs: Signs, *, tested: bool) -> Verdict:
    """A failure by the language's own words for it. They can be forged, but only from one failure to another."""
    verdict = _over_limits(verdict)
    if verdict.name not in ("runtime_error", "signal"):
        return verdict
    words = verdict.stderr[-_LAST_WORDS:]
    for name, sign, where in (
        ("memory_limit", signs.memory, words),
        ("compile_error", signs.unreadable, words),
        ("wrong", signs.wrong if tested else "", f"{words}\n{verdict.stdout[-_LAST_WORDS:]}"),
    ):
        if sign and re.search(sign, where):
            return replace(verdict, name=name, detail=one_line(_shown(sign, where)))
    if tested and signs.wrong_code is not None and verdict.exit_code == signs.wrong_code:
        return replace(verdict, name="wrong", detail=f"the test left with exit code {verdict.exit_code}")
    said = _shown(signs.died, words) or _likely(words, "rror", "xception", "panic")
    if tested and not said:
        said = _shown(signs.died, verdict.stdout[-_LAST_WORDS:])
    return replace(verdict, detail=one_line(f"{verdict.detail}: {said}" if said else verdict.detail))


def _shown(sign: str, text: str) -> str:
    """What a sign's groups found, or the line it was found in; empty where it was not."""
    found = re.search(sign, text) if sign else None
    if not found:
        return ""
    if found.re.groups:
        return ": ".join(part.rstrip(" :") for part in found.groups() if part)
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.start())
    return text[start : end if end >= 0 else len(text)]


def _likely(text: str, *words: str) -> str:
    """The first line with one of `words`, else the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if any(word in line for word in words)), lines[-1] if lines else "")
