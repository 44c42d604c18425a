"""One trial after another: the program is run, its verdict judged, and the machine and the next programs looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from ...errors import WishError
from ..foreign.toolchain import toolchain_of
from ..pool import Pool
from ..verdict import Call, Program, Verdict
from .bait import Bait
from .entry import HELD, QUICK, Attack
from .traces import Traces

_ENTRY = "f"
_TEST = "def check(candidate):\n    assert candidate(1) == {!r}\n"
_MOST_SECONDS = 40.0
"""More wall time than any program's limit and the building of a new jail take together, on a busy machine."""

_COMPILED = {"cpp": "int main() {{}} // {}", "rust": "fn main() {{}} // {}"}

NEXT = """
import builtins, math, os, random, re, socket
assert os.listdir('.') == [], os.listdir('.')
for folder in ('/tmp', '/var/tmp', '/dev/shm', os.path.expanduser('~')):
    try: names = os.listdir(folder)
    except OSError: continue
    assert not names, names
assert not hasattr(builtins, 'temper_attack')
assert random.random() != random.random() and re.match('a', 'a')
for family, address in ((socket.AF_UNIX, '\\0temper-attack'), (socket.AF_INET, ('127.0.0.1', 5555))):
    try: place = socket.socket(family)
    except PermissionError: continue
    place.bind(address)
    place.close()
try: os.kill(-1, 0)
except OSError: pass
else: raise AssertionError('there is another process')
def f(x): return math.floor(x) + 1
"""
"""A right program that looks for what the one before it may have left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one program, judged one way."""

    number: int
    """Of its class."""
    category: str
    name: str
    form: str
    verdict: str
    detail: str
    problems: tuple[str, ...] = ()
    """Why it was not held; empty where it was."""
    skipped: str = ""
    """Why it was not tried."""

    @property
    def held(self) -> bool:
        return not self.problems


class Drill:
    """A pool of one worker at one level and mode, and all that is watched while it is attacked.

    Args:
        level: exactly this level; None takes the best there is.
        mode: "reused" or "fresh".

    Raises:
        WishError: this machine cannot give the level.
    """

    def __init__(self, level: str | None = None, mode: str = "reused") -> None:
        self.traces = Traces()
        self.bait = Bait()
        self._opened: set[str] = set()
        self._compiled = 0
        self._closed = False
        try:
            self.pool = Pool(1, level, ceiling=level, mode=mode)
            self.level, self.mode = self.pool.level, mode
            self._next_programs()
            self.traces.settle()
        except BaseException:
            if hasattr(self, "pool"):
                self.pool.close()
            self.bait.close()
            self.traces.close()
            raise

    def __enter__(self) -> Drill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> list[str]:
        """Close the pool and take the bait in; what was left behind after that, in words. Again: nothing."""
        if self._closed:
            return []
        self._closed = True
        self.pool.close()
        self.bait.close()
        left = self.traces.after_close()
        self.traces.close()
        return left

    def trials(self, attack: Attack) -> Iterator[Outcome]:
        """Try a program in each of its forms."""
        for form in attack.forms:
            yield self._try(attack, form)

    def _try(self, attack: Attack, form: str) -> Outcome:
        outcome = Outcome(attack.number, attack.category, attack.name, form, "", "")
        if form == "command" and self.level != "process":
            try:
                toolchain_of(attack.language)
            except WishError as error:
                return replace(outcome, skipped=error.what)
            self._open_compilers(attack.language)
        started = time.monotonic()
        verdict = self._verdict(self._program(attack, form), attack)
        seconds = time.monotonic() - started
        problems = self._judge(attack, verdict)
        if seconds > _MOST_SECONDS:
            problems.append(f"it took {seconds:.0f} s until the verdict")
        problems += [*self.bait.touched(), *self._next_programs(attack.language), *self.traces.found()]
        return replace(outcome, verdict=verdict.name, detail=verdict.detail, problems=tuple(problems))

    def _verdict(self, program: Program, attack: Attack) -> Verdict:
        try:
            return self.pool.run(program, attack.limits)
        except WishError as error:
            return Verdict("refused", error.what)

    def _program(self, attack: Attack, form: str) -> Program:
        expected = self.bait.secret if attack.seeks_answer else 2
        program = Program(
            attack.source,
            language=attack.language,
            arguments=self.bait.words if attack.baited else (),
            collect=attack.collect,
        )
        if form == "calls":
            return replace(program, calls=(Call(f"{_ENTRY}(1)", expected),))
        if form in ("test", "together"):
            test = _TEST.format(expected)
            return replace(program, entry_point=_ENTRY, test=test, together=form == "together")
        return program

    def _judge(self, attack: Attack, verdict: Verdict) -> list[str]:
        """What is wrong with the verdict itself."""
        problems = []
        allowed = (*(attack.allowed or ("passed",)), *(attack.alone if self.level == "process" else ()))
        if verdict.name not in allowed:
            said = verdict.detail or (verdict.stderr.strip() or verdict.stdout.strip())[-200:]
            problems.append(f"the verdict was {verdict.name} ({said}), not {' or '.join(allowed)}")
        elif verdict.passed and not attack.allowed and verdict.stdout.rpartition(HELD)[1] != HELD:
            problems.append("it came to a good end without a word on what was refused")
        told = (
            replace(verdict, detail="") if attack.seeks_answer else verdict
        )  # where the worker names both values
        if self.bait.secret in repr(asdict(told)):
            problems.append("the secret came out")
        if verdict.passed and verdict.cpu_seconds < attack.least_cpu:
            problems.append(
                f"only {verdict.cpu_seconds:.2f} CPU seconds were counted, not {attack.least_cpu:g}"
            )
        return problems

    def _open_compilers(self, language: str) -> None:
        """A language's first program builds jails that stay: they are part of the pool at rest."""
        if language not in self._opened:
            self._next_compiled(language)
            self._opened.add(language)
            self.traces.settle()

    def _next_compiled(self, language: str) -> list[str]:
        """Whether a right program of a language is still compiled, anew, and run."""
        self._compiled += 1
        program = Program(_COMPILED[language].format(self._compiled), language=language)
        verdict = self.pool.run(program, QUICK)
        return (
            []
            if verdict.passed
            else [f"the next program in {language} was {verdict.name} ({verdict.detail})"]
        )

    def _next_programs(self, language: str = "python") -> list[str]:
        """Whether right and wrong programs are still told apart, in each form, and the supervisor still answers."""
        right = Program(NEXT, calls=(Call("f(1)", 2), Call("f(2)", 3)))
        wrong = replace(right, source="def f(x): return x")
        programs = {"right": right, "wrong": wrong}
        for together, how in ((False, "tested"), (True, "tested together")):
            for name, program in (("right", right), ("wrong", wrong)):
                test = _TEST.format(2)
                programs[f"{name} {how}"] = replace(
                    program, calls=(), entry_point=_ENTRY, test=test, together=together
                )
        problems = self._next_compiled(language) if language in self._opened else []
        for (name, program), due in zip(programs.items(), ("passed", "wrong") * 3, strict=True):
            verdict = self.pool.run(program, QUICK)
            if verdict.name != due:
                problems.append(f"the next {name} program was {verdict.name} ({verdict.detail})")
        return problems
