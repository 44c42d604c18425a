"""Right and wrong programs in every form, each with the verdict that is right for it."""

from __future__ import annotations

from pathlib import Path

from engine.evaluate.benchmarks import humaneval
from engine.sandbox import Call, File, Program

from .trial import Trial

_RIGHT = {
    "add": ("def f(x, y): return x + y", "f(2, 3)", 5),
    "sort": ("def f(x): return sorted(x, reverse=True)", "f([2, 3, 1])", [3, 2, 1]),
    "count": ("from collections import Counter\ndef f(x): return dict(Counter(x))", "f('aab')", {"a": 2, "b": 1}),
    "primes": (
        "def f(n): return [p for p in range(2, n) if all(p % q for q in range(2, p))]",
        "f(12)",
        [2, 3, 5, 7, 11],
    ),
    "words": ("import re\ndef f(x): return re.findall(r'\\w+', x)", "f('a, bc')", ["a", "bc"]),
    "mean": ("import statistics\ndef f(x): return statistics.fmean(x)", "f([0.1, 0.2, 0.3])", 0.2),
    "memory": ("def f(n): return sum(bytearray(b'x') * n) // n", "f(300_000)", 120),
    "depth": ("def f(n): return n and 1 + f(n - 1)", "f(900)", 900),
}  # fmt: skip
_SCRIPTS = {
    "reads": Program("a, b = map(int, input().split())\nprint(a + b)", stdin=b"2 3\n"),
    "prints": Program("for i in range(2000): print(i, 'é')"),
    "writes": Program("open('x', 'w').write('1')\nassert open('x').read() == '1'"),
    "threads": Program(
        "from threading import Thread\nfound = []\nall = [Thread(target=found.append, args=(i,)) for i in range(4)]\n"
        "for t in all: t.start()\nfor t in all: t.join()\nassert sorted(found) == [0, 1, 2, 3]"
    ),
    "forks": Program("import os\npid = os.fork()\nif not pid: os._exit(3)\nassert os.waitpid(pid, 0)[1] >> 8 == 3"),
    "files": Program(
        "print(open('in.txt').read())\nopen('out.txt', 'w').write('y')",
        files=(File("in.txt", b"x"),),
        collect=("out.txt",),
    ),
    "finds nothing of others": Program(
        "import os\nassert os.listdir('.') == ['program.py'], os.listdir('.')\n"
        "assert os.listdir('/dev/shm') in ([], ['program.py']), os.listdir('/dev/shm')"
    ),
}  # fmt: skip
_ASIDE = {"forks"}
"""Refused at level process."""


def trials(level: str, data: Path | None) -> list[Trial]:
    """Right and wrong ones; HumanEval's own where its file is given."""
    found = []
    for name, (source, expression, expected) in _RIGHT.items():
        broken = source.replace("return ", "return None and ")
        for kind, text, allowed in (("right", source, "passed"), ("wrong", broken, "wrong")):
            for form, program in _forms(text, expression, expected).items():
                found.append(Trial(f"{kind} {form}, {name}", program, (allowed,)))
    for name, program in _SCRIPTS.items():
        if level != "process" or name not in _ASIDE:
            found.append(Trial(f"right script, {name}", program, ("passed",)))
    found.append(Trial("wrong script, raises", Program("{}['missing']"), ("runtime_error",)))
    found.append(Trial("wrong script, no Python", Program("def f(:"), ("compile_error",)))
    return found + (_canonical(data) if data else [])


def _forms(source: str, expression: str, expected: object) -> dict[str, Program]:
    claim = "assert abs(({} or 0) - {!r}) < 1e-9" if isinstance(expected, float) else "assert {} == {!r}"
    check = (
        f"def check(candidate):\n    {claim.format(expression.replace('f(', 'candidate(', 1), expected)}\n"
    )
    beside = f"{claim.format(expression, expected)}\n"
    return {
        "calls": Program(source, calls=(Call(expression, expected),)),
        "test": Program(source, entry_point="f", test=check),
        "together": Program(source, test=beside, together=True),
        "script": Program(f"{source}\n{beside}"),
    }


def _canonical(data: Path) -> list[Trial]:
    """HumanEval's canonical solutions, and a stub for each."""
    found = []
    for task in humaneval.load(str(data / "humaneval" / "HumanEval.jsonl.gz")):
        right = humaneval.program(task, task.reference or "")
        found.append(Trial(f"right HumanEval, {task.id}", right, ("passed",)))
        stub = humaneval.program(task, "    return None\n")
        found.append(Trial(f"wrong HumanEval, {task.id}", stub, ("wrong",)))
    return found
