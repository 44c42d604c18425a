"""What can be proven of MultiPL-E in every language: its programs compile and reach the function, and tests tell
right from wrong.

Run: TEMPER_DATA=FOLDER python benchmarks/multipl_e.py [--workers N] [[--languages NAME ...] [--limit N] | --write]. The
folder holds multipl_e/humaneval-{js,ts,cpp,java,rs,sh,pl,lua}.jsonl.gz, which have no canonical solutions. What is
absent of the toolchains is skipped with a word. Prints a table; --write also puts it in docs/results/multipl_e.md. A
right program that fails, and a wrong one or a stub that passes, is an error; a task that cannot be reached is named.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from executors.machine import ROOT, command, demand_whole, facts, prose
from sandbox_languages import DIALECTS, Dialect, answer_to, table

from engine.evaluate import Court, Task, find
from engine.evaluate.judge import judge
from engine.evaluate.rows import from_file
from engine.sandbox import Verdict
from engine.sandbox.foreign.toolchain import languages

BENCHMARK = find("multipl-e")
MARK = "the function was called"
CALLED = {
    "javascript": f'console.error("{MARK}"); throw new Error();',
    "typescript": f'(globalThis as any).console.error("{MARK}"); throw new Error();',
    "cpp": f'std::cerr << "{MARK}" << std::endl; throw 1;',
    "java": f'System.err.println("{MARK}"); throw new RuntimeException();',
    "rust": f'eprintln!("{MARK}"); panic!()',
    "bash": f'echo "{MARK}" >&2; exit 1',
    "perl": f'print STDERR "{MARK}\\n"; die;',
    "lua": f'io.stderr:write("{MARK}\\n"); error("stub")',
}
"""Bodies of any type that say they ran, and fail."""

_GCD, _BELOW, _FIB = (
    "HumanEval_13_greatest_common_divisor",
    "HumanEval_52_below_threshold",
    "HumanEval_55_fib",
)
_C_GCD = "while (b != 0) { auto rest = a % b; a = b; b = rest; } return a;"
_C_FIB = "long a = 0, b = 1; for (long i = 0; i < n; i++) { long sum = a + b; a = b; b = sum; } return a;"
_JS_GCD = "while (b !== 0) { const rest = a % b; a = b; b = rest; } return a;"
_JS_FIB = "let a = 0; let b = 1; for (let i = 0; i < n; i++) { const sum = a + b; a = b; b = sum; } return a;"
RIGHT = {
    "javascript": {_GCD: _JS_GCD, _BELOW: "return l.every(x => x < t);", _FIB: _JS_FIB},
    "typescript": {_GCD: _JS_GCD, _BELOW: "return l.every(x => x < t);", _FIB: _JS_FIB},
    "cpp": {
        _GCD: _C_GCD,
        _BELOW: "for (long x : l) { if (x >= t) return false; } return true;",
        _FIB: _C_FIB,
    },
    "java": {
        _GCD: _C_GCD.replace("auto", "long"),
        _BELOW: "for (long x : l) { if (x >= t) return false; } return true;",
        _FIB: _C_FIB,
    },
    "rust": {
        _GCD: "let (mut a, mut b) = (a, b); while b != 0 { let rest = a % b; a = b; b = rest; } a",
        _BELOW: "l.iter().all(|x| *x < t)",
        _FIB: "let (mut a, mut b) = (0, 1); for _ in 0..n { let sum = a + b; a = b; b = sum; } a",
    },
    "bash": {
        _GCD: "local a=$1 b=$2 rest; while ((b != 0)); do rest=$((a % b)); a=$b; b=$rest; done; echo $a",
        _BELOW: 'local x; for x in $1; do if ((x >= $2)); then echo "false"; return; fi; done; echo "true"',
        _FIB: "local a=0 b=1 sum i; for ((i = 0; i < $1; i++)); do sum=$((a + b)); a=$b; b=$sum; done; echo $a",
    },
    "perl": {
        _GCD: "while ($b != 0) { my $rest = $a % $b; $a = $b; $b = $rest; } return $a;",
        _BELOW: 'for my $x (@$l) { return "" if $x >= $t; } return 1;',
        _FIB: "my ($one, $two) = (0, 1); for (1 .. $n) { ($one, $two) = ($two, $one + $two); } return $one;",
    },
    "lua": {
        _GCD: "while b ~= 0 do a, b = b, a % b end return a",
        _BELOW: "for _, x in ipairs(l) do if x >= t then return false end end return true",
        _FIB: "local one, two = 0, 1 for _ = 1, n do one, two = two, one + two end return one",
    },
}
"""Written for this, beside those that sandbox_languages.py has of three more tasks."""
SLIPS = (
    ("x + y", "x - y"), ("$1 + $2", "$1 - $2"), ("$x + $y", "$x - $y"),
    ("n * n", "n + n"), ("$1 * $1", "$1 + $1"), ("$n * $n", "$n + $n"),
    ("string.length;", "string.length + 1;"), ("string.size()", "string.size() + 1"),
    ("string.length()", "string.length() + 1"), ("string.len()", "(string.len() + 1)"),
    ('"${#1}"', '"${1}"'), ("length($string)", "length($string) + 1"), ("#string", "#string + 1"),
    (">= t", "> t"), (">= $2", "> $2"), (">= $t", "> $t"), ("x < t", "x <= t"),
    ("return a;", "return a + 1;"), ("return $a;", "return $a + 1;"), ("return a", "return a + 1"),
    ("echo $a", "echo $((a + 1))"), ("} a", "} a + 1"),
    ("return $one;", "return $two;"), ("return one", "return two"),
)  # fmt: skip
"""What makes a right body wrong: the first that it holds."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A task, an answer, and what is proven by it."""

    kind: str
    task: Task
    completion: str


@dataclass(slots=True)
class Proven:
    """One language's tasks and what was proven of them."""

    language: str
    toolchain: str = ""
    tasks: int = 0
    right: int = 0
    wrong: int = 0
    """How many hand-written programs of each there are; all of the first must pass, none of the second."""
    called: int = 0
    answers: int = 0
    solved: int = 0
    seconds: float = 0.0
    unreached: list[str] = field(default_factory=list)
    """Tasks whose tests did not get to the function: the data's fault, or a library that is missing."""
    faults: list[str] = field(default_factory=list)

    def count(self, trial: Trial, verdict: Verdict) -> None:
        """Take in one verdict."""
        self.toolchain = self.toolchain or verdict.toolchain
        called = MARK in verdict.stderr or MARK in verdict.stdout
        self.called += trial.kind == "called" and called
        self.solved += trial.kind == "answer" and verdict.passed
        unmet = {
            "right": not verdict.passed,
            "wrong": verdict.passed,
            "empty": verdict.passed,
            "called": verdict.passed,
            "answer": False,
        }[trial.kind]
        if unmet or verdict.name == "infra":
            self.faults.append(f"{trial.task.id}: {trial.kind}, {verdict.name} ({verdict.detail})")
        elif trial.kind == "called" and not called:
            self.unreached.append(f"{trial.task.id}: {verdict.name} ({verdict.detail})")


def slipped(body: str) -> str:
    """The body with one mistake."""
    before, after = next(pair for pair in SLIPS if pair[0] in body)
    return body.replace(before, after)


def trials(dialect: Dialect, tasks: list[Task], problems: dict[str, dict]) -> Iterable[Trial]:
    """All that is run in one language."""
    bodies = dialect.right | RIGHT[dialect.name]
    for task in tasks:
        problem = problems[task.id.partition("/")[2]]
        yield Trial("empty", task, closed(dialect, task, ""))
        yield Trial("called", task, closed(dialect, task, CALLED[dialect.name]))
        if body := bodies.get(problem["name"]):
            yield Trial("right", task, closed(dialect, task, body))
            yield Trial("wrong", task, closed(dialect, task, slipped(body)))
        if answer := answer_to(dialect, problem):
            yield Trial("answer", task, closed(dialect, task, answer))


def closed(dialect: Dialect, task: Task, body: str) -> str:
    """A completion: the body, and the end of the function where the tests do not begin with it."""
    assert task.test
    return f"    {body}" + ("" if task.test.startswith(dialect.close.strip("\n")) else dialect.close)


def prove(dialect: Dialect, data: Path, wish: argparse.Namespace) -> Proven:
    file = data / "multipl_e" / f"humaneval-{dialect.suffix}.jsonl.gz"
    problems = {row["name"]: row for _, row in from_file(str(file))}
    tasks = BENCHMARK.load(str(file), limit=wish.limit)
    wanted = list(trials(dialect, tasks, problems))
    kinds = [trial.kind for trial in wanted]
    proven = Proven(dialect.name, tasks=len(tasks))
    proven.right, proven.wrong, proven.answers = map(kinds.count, ("right", "wrong", "answer"))

    def answer(index: int) -> tuple:
        trial = wanted[index]
        return trial.task, BENCHMARK.program(trial.task, trial.completion)

    started = time.perf_counter()
    for index, verdict in judge(BENCHMARK, len(wanted), answer, Court(workers=wish.workers)):
        proven.count(wanted[index], verdict)
    proven.seconds = time.perf_counter() - started
    return proven


def rows(found: list[Proven]) -> list[list[str]]:
    shown = []
    for one in found:
        failing = {
            kind: sum(f": {kind}, " in fault for fault in one.faults) for kind in ("right", "wrong", "empty")
        }
        cells = [one.language, one.toolchain, str(one.tasks), f"{one.called} of {one.tasks}"]
        cells += [f"{failing['empty']} of {one.tasks}", f"{one.right - failing['right']} of {one.right}"]
        cells += [
            f"{failing['wrong']} of {one.wrong}",
            f"{one.solved} of {one.answers}",
            f"{one.seconds:.0f} s",
        ]
        shown.append(cells)
    return shown


def page(found: list[Proven], absent: list[str], workers: int) -> str:
    head = prose(
        f"`{command()}`, {facts()}, {workers} workers; load average at the end {os.getloadavg()[0]:.1f}."
    )
    about = prose(
        "MultiPL-E translates HumanEval's prompts and tests and has no canonical solutions, so no 100 % can be "
        "shown. What is shown instead, with the benchmark as `temper` has it. Reached: a body that says on stderr "
        "that it was called, and then fails: so prompt and tests compile together, the tests' libraries are "
        "there, the tests call the function, and its failure is a failure. Empty: the prompt with an empty body; "
        "none may pass. Right and wrong: programs written by hand for six tasks, and the same with one slip each "
        "(a sign, a bound, off by one); all of the first must pass, none of the second. Solved: the data carries "
        "a model's answer to each task, which counts where it has the prompt's function: a task so solved has "
        "tests that can be passed. Not all of those answers are right, so the rest says nothing of the tasks."
    )
    heads = [
        "language",
        "toolchain",
        "tasks",
        "reached",
        "empty passed",
        "right passed",
        "wrong passed",
        "solved",
        "time",
    ]
    faults = [fault for one in found for fault in one.faults]
    told = "".join(f"\n{line}.\n" for line in absent)
    unreached = [line for one in found for line in one.unreached]
    for heading, lines in (("Not reached", unreached), ("Not as wanted", faults)):
        told += f"\n## {heading}\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""
    return f"# MultiPL-E, language by language\n\n{head}\n\n{about}\n\n{table(heads, rows(found))}\n{told}"


def main() -> None:
    """Print the table, write it where asked, and fail on a fault."""
    names = [dialect.name for dialect in DIALECTS]
    parser = argparse.ArgumentParser(description="Validate MultiPL-E in every language.")
    parser.add_argument("--languages", nargs="+", choices=names, default=names)
    parser.add_argument("--limit", type=int, help="first so many tasks of each language")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    demand_whole(parser, wish, "languages", "limit")
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with multipl_e/")
    here, found, absent = languages(), [], []
    for dialect in DIALECTS:
        gone = [str(path) for path in dialect.files if not path.exists()]
        if dialect.name not in wish.languages:
            continue
        if here[dialect.name].missing or gone:
            absent.append(
                f"{dialect.name}: skipped, {here[dialect.name].missing or 'there is no ' + gone[0]}"
            )
            continue
        found.append(prove(dialect, Path(os.environ["TEMPER_DATA"]), wish))
        print(f"{dialect.name}: {found[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    text = page(found, absent, wish.workers)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "multipl_e.md").write_text(text, encoding="utf-8")
    if any(one.faults for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
