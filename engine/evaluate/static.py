"""What can be said of programs without running them: length, cyclomatic complexity, and a linter's findings.

Complexity (McCabe 1976) and findings are ruff's, in one call over all programs; where ruff is not installed, lengths
alone are told. Nothing is executed: a program is text here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.errors import TemperError
from engine.evaluate.benchmarks import Benchmark
from engine.evaluate.task import Task
from engine.generate import parsed
from engine.sandbox import Program

RULES = "B,C901,E,F,PERF,SIM,W"
"""pycodestyle, Pyflakes, bugbear, simplify and perflint, and the complexity of each function."""
LEFT_OUT = "W292,W391"
"""How a text ends is up to what extracted it."""
SHOWN = 5
_COMPLEXITY = re.compile(r"\((\d+) > 0\)")


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one set of programs, each text once."""

    programs: int
    lines: float | None
    """Median, blank ones left out."""
    characters: float | None
    complexity: float | None = None
    """Median over programs of their most complex function's; None without ruff, or where none has a function."""
    unreadable: int | None = None
    """Programs that are no Python."""
    findings: dict[str, float] | None = None
    """By rule, per 100 lines of the readable programs, most first."""

    def line(self, name: str) -> str:
        """For a person to read."""
        if not self.programs or self.lines is None or self.characters is None:
            return f"  {name:11} none"
        text = f"  {name:11} {self.programs:,} programs, median {self.lines:g} lines, {self.characters:g} characters"
        if self.findings is None:
            return text
        if self.complexity is not None:
            text += f", complexity {self.complexity:g}"
        some = ", ".join(f"{rule} {count:.1f}" for rule, count in list(self.findings.items())[:SHOWN])
        total = sum(self.findings.values())
        text += f", {total:.1f} findings in 100 lines" + (f" ({some})" if some else "")
        return text + (f", {self.unreadable} are no Python" if self.unreadable else "")


@dataclass(frozen=True, slots=True)
class Static:
    """Facts by kind of program: passing, failing, references."""

    facts: Mapping[str, Facts]
    ruff: str | None
    """Its version; None where it is not installed."""

    def as_json(self) -> dict[str, Any]:
        """This part of summary.json and of what `temper score --json` prints."""
        return {"ruff": self.ruff, **{name: asdict(facts) for name, facts in self.facts.items()}}

    def lines(self) -> list[str]:
        """For a person to read."""
        by = self.ruff or "ruff is not installed: no complexity and no findings; `pip install ruff`"
        return [f"static facts ({by})", *(facts.line(name) for name, facts in self.facts.items())]


def by_kind(benchmark: Benchmark, judged: Iterable[tuple[Task, Program, str]]) -> dict[str, list[str]]:
    """Texts of whole programs, from (task, program, verdict) of each: those that passed, those that failed, and the
    references of their tasks."""
    texts: dict[str, list[str]] = {"passing": [], "failing": [], "references": []}
    for task, program, verdict in judged:
        if verdict != "infra":
            texts["passing" if verdict == "passed" else "failing"].append(program.source)
        if task.reference:
            texts["references"].append(benchmark.program(task, task.reference).source)
    return texts


def describe(sets: Mapping[str, Iterable[str]]) -> Static:
    """Look at sets of Python programs, by name.

    Raises:
        TemperError: ruff failed.
    """
    distinct = {name: list(dict.fromkeys(texts)) for name, texts in sets.items()}
    ruff = _ruff()
    if ruff is None:
        return Static({name: _facts(texts) for name, texts in distinct.items()}, None)
    version = subprocess.run([ruff, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return Static({name: _facts(texts, _lint(ruff, texts)) for name, texts in distinct.items()}, version)


def _ruff() -> str | None:
    """The linter of this environment, or else the one on the path."""
    return shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")


def _lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def _facts(texts: Sequence[str], found: Mapping[int, list[tuple[str, str]]] | None = None) -> Facts:
    """Args: texts; `found`: (rule, message) of each finding by index of its text, None without a linter."""
    if not texts:
        return Facts(0, None, None)
    lengths = median(map(_lines, texts)), median(map(len, texts))
    if found is None:
        return Facts(len(texts), *lengths)
    unreadable = {index for index, told in found.items() if any(not rule for rule, _ in told)}
    most: list[int] = []
    rules: Counter[str] = Counter()
    for index, told in found.items():
        if index in unreadable:
            continue
        complexities = [
            int(m[1]) for rule, text in told if rule == "C901" and (m := _COMPLEXITY.search(text))
        ]
        most += [max(complexities)] if complexities else []
        rules.update(rule for rule, _ in told if rule != "C901")
    whole = sum(_lines(text) for index, text in enumerate(texts) if index not in unreadable)
    return Facts(
        len(texts),
        *lengths,
        complexity=median(most) if most else None,
        unreadable=len(unreadable),
        findings={rule: 100 * count / whole for rule, count in rules.most_common()} if whole else {},
    )


def _lint(ruff: str, texts: Sequence[str]) -> dict[int, list[tuple[str, str]]]:
    """(rule, message) of each finding, by index; the rule of a text that is no Python is empty."""
    readable = [index for index, text in enumerate(texts) if parsed(text) is not None]
    found = {index: [("", "no Python")] for index in {*range(len(texts))} - {*readable}}
    if not readable:
        return found
    with tempfile.TemporaryDirectory() as folder:
        for index in readable:  # what is nested without end would end the linter, and with it all findings
            (Path(folder) / f"p{index}.py").write_bytes(texts[index].encode())
        options = ["--isolated", "--no-cache", "--exit-zero", "--ignore-noqa", "--output-format", "json"]
        options += ["--select", RULES, "--ignore", LEFT_OUT, "--config", "lint.mccabe.max-complexity=0"]
        done = subprocess.run([ruff, "check", *options, folder], capture_output=True, text=True)
        try:
            told = json.loads(done.stdout)
        except ValueError:
            raise TemperError(
                f"ruff gave no findings ({done.stderr.strip()[-200:]})",
                "leave out static, or install another ruff",
            ) from None
    for one in told:
        rule = "" if one["code"] in (None, "invalid-syntax") else one["code"]
        found.setdefault(int(Path(one["filename"]).stem[1:]), []).append((rule, one["message"]))
    return found
