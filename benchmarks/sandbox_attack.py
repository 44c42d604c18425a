"""The hostile programs of `temper sandbox attack` at every level and in every mode: what was held, class by class.

    python benchmarks/sandbox_attack.py [--write]

Each level and mode is drilled in a process of its own, one after the other; some ten minutes in all. Prints a table;
--write puts it in docs/results/sandbox_attack.md. Exit code 1 when anything was not held.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

from executors.machine import ROOT, command, facts, prose

sys.path.insert(0, str(ROOT))
from engine.sandbox.attack.classes import CLASSES

PAGE = ROOT / "docs" / "results" / "sandbox_attack.md"
PLACES = (("full", "reused"), ("full", "fresh"), ("user", "reused"), ("user", "fresh"), ("process", "reused"))
ABOUT = """\
Each cell is programs held of programs tried; a program that has several forms (a script, value calls, a test in
a judge apart, a test beside it) counts once for each. Held means: the verdict is one the catalogue allows for
it, no process, file, mount, control group or IPC object is left on the machine, the bait (a process, a file, a
port, a variable) is untouched, and six programs after it, right ones and wrong ones, get the verdicts they
deserve. "Verdicts" are those given at the first level of the table. Level process has no namespaces to make
fresh, and refuses compilers: class 16 (C++ and Rust) counts as held there because none of it is run."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """One level and mode."""

    place: str
    outcomes: list[dict]
    left: list[str]
    summary: str
    seconds: float

    @property
    def tried(self) -> list[dict]:
        """Outcomes of the programs that ran here; others lack a compiler."""
        return [outcome for outcome in self.outcomes if not outcome["skipped"]]

    def cell(self, number: int) -> str:
        """Programs of a class held and tried."""
        tried = [outcome for outcome in self.tried if outcome["number"] == number]
        return f"{sum(outcome['held'] for outcome in tried)}/{len(tried)}" if tried else "not tried"

    def verdicts(self, number: int) -> str:
        """Verdicts of a class, most frequent first."""
        names = Counter(outcome["verdict"] for outcome in self.tried if outcome["number"] == number)
        return ", ".join(name for name, _ in names.most_common())


def drill(level: str, mode: str) -> Drilled | str:
    """All programs at one level, or why that cannot be had here."""
    words = [
        sys.executable,
        "-m",
        "launch.cli",
        "sandbox",
        "attack",
        "--level",
        level,
        "--mode",
        mode,
        "--json",
    ]
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if not done.stdout:
        return f"{level}, {mode}: {done.stderr.strip()}"
    told = json.loads(done.stdout)
    seconds = time.monotonic() - began
    return Drilled(f"{level}, {mode}", told["outcomes"], told["left"], told["summary"], seconds)


def page(drills: list[Drilled], absent: list[str]) -> str:
    """The whole page."""
    heads = ["class", "what it does", *(drilled.place for drilled in drills), "verdicts"]
    rows = [heads, ["---"] * len(heads)]
    for number, title in CLASSES.items():
        cells = [drilled.cell(number) for drilled in drills]
        rows.append([str(number), title, *cells, drills[0].verdicts(number)])
    how = f"`{command()}`, {facts()}, as {'root' if os.geteuid() == 0 else 'an ordinary user'}."
    lines = [f"- {d.summary} ({len(d.tried)} trials, {d.seconds:.0f} s)" for d in drills]
    lines += [f"- not to be had here: {words}" for words in absent]
    lines += [
        f"- NOT HELD at {d.place}: class {o['number']}, {o['name']}, as {o['form']}: {'; '.join(o['problems'])}"
        for d in drills
        for o in d.outcomes
        if not o["held"]
    ]
    lines += [f"- NOT HELD at {d.place}, after the end: {trace}" for d in drills for trace in d.left]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return (
        "\n\n".join(["# Hostile programs, class by class", prose(how), ABOUT, "\n".join(lines), table]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    drills, absent = [], []
    for level, mode in PLACES:
        found = drill(level, mode)
        if isinstance(found, Drilled):
            drills.append(found)
            print(found.summary, file=sys.stderr, flush=True)
        else:
            absent.append(found)
    if not drills:
        sys.exit("\n".join(absent))
    text = page(drills, absent)
    print(text)
    if wish.write:
        PAGE.write_text(text, encoding="utf-8")
    if any(d.left or not all(o["held"] for o in d.outcomes) for d in drills):
        sys.exit(1)


if __name__ == "__main__":
    main()
