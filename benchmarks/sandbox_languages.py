"""Other languages' programs in the sandbox: verdicts on MultiPL-E's problems, programs/s, and what compiling costs.

Run: TEMPER_DATA=FOLDER python benchmarks/sandbox_languages.py [--languages NAME ...] [--limit N] [--workers N]
[--write]. The folder holds multipl_e/humaneval-{js,ts,cpp,java,rs,sh,pl,lua}.jsonl.gz (prompts, tests, and an answer of
a model to each). Perl's tests need Test::Deep (Debian: libtest-deep-perl), Lua's luaunit (lua-unit), Java's javatuples
(libjavatuples-java). What is absent is skipped with a word. Prints tables; --write also puts them in
docs/results/sandbox_languages.md. A right program that fails, or a stub that passes, is an error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from executors.clock import Clock, running
from executors.machine import ROOT, command, facts, prose

from engine.sandbox import File, Limits, Pool, Program, Verdict
from engine.sandbox.foreign.toolchain import languages

LIMITS = Limits(cpu_seconds=5.0, wall_seconds=20.0, memory_mb=1024)
JAVATUPLES = Path("/usr/share/java/javatuples.jar")
TIMES_BY_HAND = 8
"""Programs of a language without problems here, made different so that each is compiled."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one language's problems are put together."""

    name: str
    suffix: str
    """Of its file in MultiPL-E."""
    close: str
    """What ends a function, at the start of a line."""
    leave: str
    """A body that ends the process with exit code 0."""
    right: dict[str, str]
    """Bodies known to be right, by the name of the problem."""
    files: tuple[Path, ...] = ()


_ADD, _RACE, _LENGTH = "HumanEval_53_add", "HumanEval_41_car_race_collision", "HumanEval_23_strlen"
_JS = {_ADD: "return x + y;", _RACE: "return n * n;", _LENGTH: "return string.length;"}

DIALECTS = (
    Dialect("javascript", "js", "\n}", "process.exit(0);", _JS),
    Dialect("typescript", "ts", "\n}", "(globalThis as any).process.exit(0); throw 0;", _JS),
    Dialect(
        "cpp",
        "cpp",
        "\n}",
        "exit(0);",
        {_ADD: "return x + y;", _RACE: "return n * n;", _LENGTH: "return string.size();"},
    ),
    Dialect(
        "java",
        "java",
        "\n    }",
        "System.exit(0); throw new RuntimeException();",
        {_ADD: "return x + y;", _RACE: "return n * n;", _LENGTH: "return string.length();"},
        (JAVATUPLES,),
    ),
    Dialect(
        "rust",
        "rs",
        "\n}",
        "std::process::exit(0)",
        {_ADD: "x + y", _RACE: "n * n", _LENGTH: "string.len() as isize"},
    ),
    Dialect(
        "bash",
        "sh",
        "\n}",
        "exit 0",
        {_ADD: "echo $(($1 + $2))", _RACE: "echo $(($1 * $1))", _LENGTH: 'echo "${#1}"'},
    ),
    Dialect(
        "perl",
        "pl",
        "\n}",
        "exit 0;",
        {_ADD: "return $x + $y;", _RACE: "return $n * $n;", _LENGTH: "return length($string);"},
    ),
    Dialect(
        "lua",
        "lua",
        "\nend",
        "os.exit(0)",
        {_ADD: "return x + y", _RACE: "return n * n", _LENGTH: "return #string"},
    ),
)

GO = 'package main\n\nimport (\n\t"os"\n\t"testing"\n)\n\nvar _ = os.Exit\n\nfunc add(x int, y int) int {\n\tBODY\n}\n'
GO_TEST = (
    'func TestAdd(t *testing.T) {\n\tif got := add(2, 3); got != 5 {\n\t\tt.Errorf("got %d", got)\n\t}\n}\n'
)


@dataclass(slots=True)
class Tried:
    """One language's programs with their verdicts."""

    name: str
    version: str = ""
    right: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    leaves: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    """Answers with another verdict at the second run."""
    first: float = 0.0
    """Programs/s, each compiled first."""
    again: float = 0.0
    """Programs/s of the same ones, which need no compiler any more."""
    compile_ms: float = 0.0
    """CPU time of all processes at the first run, less that at the second, for one program."""
    run_ms: float = 0.0
    """CPU time of all processes at the second run, for one program."""


def problems(dialect: Dialect, data: Path, limit: int) -> list[dict]:
    """`limit` problems spread evenly, and those a right body is known for."""
    with gzip.open(
        data / "multipl_e" / f"humaneval-{dialect.suffix}.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        rows = [json.loads(line) for line in file]
    step = max(1, len(rows) // limit)
    return [row for n, row in enumerate(rows) if n % step == 0 or row["name"] in dialect.right]


def program(dialect: Dialect, problem: dict, body: str) -> Program:
    """A problem with a body for its function."""
    source = f"{problem['prompt']}    {body}"
    if not problem["tests"].startswith(dialect.close.strip("\n")):
        source += dialect.close
    files = tuple(File(path.name, path.read_bytes()) for path in dialect.files)
    return Program(f"{source}\n", test=problem["tests"], language=dialect.name, files=files)


def answer_to(dialect: Dialect, problem: dict) -> str | None:
    """The body of the model's function, where its text has the function as the prompt begins it."""
    lines = [line for line in problem["prompt"].splitlines() if line.strip()]
    head = lines[-2] if dialect.name == "perl" else lines[-1]
    words = re.findall(r"\w+|[^\w\s]", head)
    begun = re.search(r"\s*".join(map(re.escape, words)), problem["gpt_solution"])
    if not begun:
        return None
    body, closed, _ = problem["gpt_solution"][begun.end() :].partition(dialect.close)
    return body if closed else None


def by_hand() -> dict[str, list[Program]]:
    """Go's programs: MultiPL-E's Go problems are not among the files."""

    def made(body: str, times: int = TIMES_BY_HAND) -> list[Program]:
        return [
            Program(GO.replace("BODY", f"{body} // {n}"), test=GO_TEST, language="go") for n in range(times)
        ]

    return {
        "right": made("return x + y"),
        "empty": made(""),
        "leaves": made("os.Exit(0); return 0"),
        "answers": made("return y + x"),
    }


def from_problems(dialect: Dialect, data: Path, limit: int) -> dict[str, list[Program]]:
    rows = problems(dialect, data, limit)
    answers = [(row, answer_to(dialect, row)) for row in rows]
    return {
        "right": [
            program(dialect, row, dialect.right[row["name"]]) for row in rows if row["name"] in dialect.right
        ],
        "empty": [program(dialect, row, "") for row in rows],
        "leaves": [program(dialect, row, dialect.leave) for row in rows],
        "answers": [program(dialect, row, body) for row, body in answers if body is not None],
    }


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of many programs."""

    verdicts: list[Verdict]
    seconds: float
    cpu_seconds: float


def judged(pool: Pool, programs: Iterable[Program], clock: Clock) -> Pass:
    clock.lap()
    started = time.perf_counter()
    verdicts = list(pool.run_many(programs, LIMITS))
    return Pass(verdicts, time.perf_counter() - started, clock.lap())


def measure(name: str, sets: dict[str, list[Program]], workers: int) -> Tried:
    """All verdicts of one language, in a pool of its own so that nothing is compiled before."""
    tried = Tried(name)
    with running() as clock, Pool(workers) as pool:
        warm = replace(sets["right"][0], source=f"{sets['right'][0].source}\n\n")
        tried.version = pool.run(warm, LIMITS).toolchain  # finds the tools and builds the jails
        list(pool.run_many([warm] * workers * 2, LIMITS))
        for kind in ("right", "empty", "leaves"):
            getattr(tried, kind).update(verdict.name for verdict in judged(pool, sets[kind], clock).verdicts)
        first, again = (judged(pool, sets["answers"], clock) for _ in range(2))
    count = len(first.verdicts)
    tried.answers.update(verdict.name for verdict in first.verdicts)
    tried.changed = sum(a.name != b.name for a, b in zip(first.verdicts, again.verdicts, strict=True))
    tried.first, tried.again = count / first.seconds, count / again.seconds
    tried.compile_ms = max(0.0, (first.cpu_seconds - again.cpu_seconds) / count * 1000)
    tried.run_ms = again.cpu_seconds / count * 1000
    return tried


def faults(tried: Tried) -> list[str]:
    """What must not be: a right program that failed, a stub that passed, a sandbox that broke."""
    found = []
    for kind, verdicts in (("empty", tried.empty), ("leaving", tried.leaves)):
        if verdicts["passed"]:
            found.append(f"{tried.name}: {verdicts['passed']} {kind} programs passed")
    if failed := tried.right.total() - tried.right["passed"]:
        found.append(f"{tried.name}: {failed} right programs failed ({dict(tried.right)})")
    if broke := sum(one["infra"] for one in (tried.right, tried.empty, tried.leaves, tried.answers)):
        found.append(f"{tried.name}: the sandbox broke {broke} times")
    return found


def _names(verdicts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in verdicts.most_common())


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def speed(all_tried: list[Tried]) -> str:
    heads = ["language", "toolchain", "programs", "programs/s", "again", "CPU ms of a compile", "of a run"]
    return table(
        heads,
        [
            [
                *(tried.name, tried.version, str(tried.answers.total()), f"{tried.first:.1f}"),
                *(f"{tried.again:.1f}", f"{tried.compile_ms:,.0f}", f"{tried.run_ms:.1f}"),
            ]
            for tried in all_tried
        ],
    )


def verdicts(all_tried: list[Tried]) -> str:
    heads = [
        "language",
        "known right",
        "empty body",
        "body that leaves with 0",
        "a model's answers",
        "changed",
    ]
    return table(
        heads,
        [
            [
                *(tried.name, *map(_names, (tried.right, tried.empty, tried.leaves, tried.answers))),
                str(tried.changed),
            ]
            for tried in all_tried
        ],
    )


def page(all_tried: list[Tried], absent: list[str], workers: int) -> str:
    head = prose(
        f"`{command()}`, {facts()}, {workers} workers; {LIMITS.cpu_seconds:g} CPU seconds, "
        f"{LIMITS.wall_seconds:g} s of wall time and {LIMITS.memory_mb} MiB a program; load average at the end "
        f"{os.getloadavg()[0]:.1f}."
    )
    about = prose(
        "HumanEval's problems as MultiPL-E translates them, spread evenly. Bodies known to be right must pass; empty "
        "bodies and bodies that leave with exit code 0 must not. A model's answers come with the data and are not "
        "all right, and only the function itself is taken; they are what the speed is measured with: each is compiled "
        "and run (programs/s), then all are run again from what was compiled (again). CPU time is that of all the "
        "pool's processes for a program, and a compile's is the difference between the two runs. Changed counts "
        "verdicts that were another at the second run. Go has no problems in the data, so its programs were written "
        "for this."
    )
    missing = "".join(f"\n{line}.\n" for line in absent)
    return (
        f"# Other languages in the sandbox\n\n{head}\n\n{about}\n\n## Speed\n\n{speed(all_tried)}\n\n"
        f"## Verdicts\n\n{verdicts(all_tried)}\n{missing}"
    )


def wishes() -> argparse.Namespace:
    names = [*(dialect.name for dialect in DIALECTS), "go"]
    parser = argparse.ArgumentParser(description="Judge other languages' programs.")
    parser.add_argument("--languages", nargs="+", choices=names, default=names)
    parser.add_argument("--limit", type=int, default=40, help="about so many problems a language")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print the tables, write them where asked, and fail on a fault."""
    wish = wishes()
    if "TEMPER_DATA" not in os.environ:
        sys.exit("set TEMPER_DATA to the folder with multipl_e/")
    dialects = {dialect.name: dialect for dialect in DIALECTS}
    here, all_tried, absent = languages(), [], []
    for name in wish.languages:
        gone = [str(path) for path in dialects[name].files if not path.exists()] if name in dialects else []
        if here[name].missing or gone:
            absent.append(f"{name}: skipped, {here[name].missing or 'there is no ' + gone[0]}")
            continue
        data = Path(os.environ["TEMPER_DATA"])
        sets = from_problems(dialects[name], data, wish.limit) if name in dialects else by_hand()
        all_tried.append(measure(name, sets, wish.workers))
        print(f"{name}: {all_tried[-1].first:.1f}/s", file=sys.stderr, flush=True)
    text = page(all_tried, absent, wish.workers)
    print(text)
    if wish.write:
        (ROOT / "docs" / "results" / "sandbox_languages.md").write_text(text, encoding="utf-8")
    if wrong := [fault for tried in all_tried for fault in faults(tried)]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
