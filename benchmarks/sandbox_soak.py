"""A pool that runs hundreds of thousands of programs, a tenth of them hostile, and must end as it began.

Run: [TEMPER_DATA=FOLDER] python benchmarks/sandbox_soak.py [--programs N] [--workers N] [--every N] [--seed N]
[--write]. Every verdict is held against those allowed for its program. Every few thousand programs the pool is
left to come to rest, and what it holds of the machine is looked at. Prints a table; exits with 1 where something
grew by more than its tolerance, or a verdict was not allowed. With TEMPER_DATA the right and wrong programs
include HumanEval's; --write also puts the tables in docs/results/sandbox_soak.md.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from executors import honest, hostile
from executors.footprint import ROWS, Footprint, Lookout
from executors.machine import ROOT, command, facts, prose
from executors.trial import Trial

from engine.sandbox import Call, Limits, Pool, Program, Verdict

PROGRAMS = 200_000
EVERY = 5_000
SHARES = (0.1, 0.6, 0.3)
"""Of hostile, right and wrong programs."""
_AHEAD = 64
"""Programs a worker that wait for their turn."""
_SHOWN = 20
"""Verdicts that were not allowed, of which more would say no more."""
_SLOW = "import time\ntime.sleep(.03)\ndef f(x): return x"
_RESTING = (
    Program(_SLOW, calls=(Call("f(1)", 1),)),
    Program(
        _SLOW, entry_point="f", test="def check(candidate):\n    for x in (1, 2): assert candidate(x) == x"
    ),
    Program(_SLOW, test="assert f(1) == 1", together=True),
)
"""One for each of a worker's jails: the programs', the judge's, and that of tests beside their program."""
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Soak:
    """What to run."""

    programs: int = PROGRAMS
    workers: int = 2
    every: int = EVERY
    """Programs between two looks."""
    seed: int = 0
    data: Path | None = None
    """Folder with humaneval/HumanEval.jsonl.gz."""


@dataclass(slots=True)
class Record:
    """What came of it."""

    level: str = ""
    looks: list[Footprint] = field(default_factory=list)
    """The first after the first lot of programs, when all jails and caches are warm; the last at the end."""
    verdicts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By kind of program."""
    faults: list[str] = field(default_factory=list)
    """Verdicts that were not allowed, the first of them in words."""
    wrong: int = 0
    """How many were not allowed."""
    seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Wall seconds of the programs, by kind."""

    def growth(self, name: str) -> int | float:
        """From the first look to the last."""
        first, last = getattr(self.looks[0], name), getattr(self.looks[-1], name)
        grown: int | float = last - first
        return grown

    def grown(self) -> list[str]:
        """What grew beyond its tolerance."""
        return [name for name, row in ROWS.items() if self.growth(name) > row.tolerance]

    @property
    def held(self) -> bool:
        """Whether all is as it should be."""
        return not self.wrong and not self.grown()


def programs(soak: Soak, level: str) -> Iterator[Trial]:
    """The programs in the order the seed draws."""
    attacks, others = hostile.trials(), honest.trials(level, soak.data)
    right = [trial for trial in others if trial.kind.startswith("right")]
    wrong = [trial for trial in others if not trial.kind.startswith("right")]
    draw = random.Random(soak.seed)
    for _ in range(soak.programs):
        (group,) = draw.choices((attacks, right, wrong), SHARES)
        yield draw.choice(group)


def run(soak: Soak, say: Callable[[str], None] = lambda line: None) -> Record:
    """Run all programs through one pool, looking at it in between."""
    record = Record()
    lookout = Lookout()
    began = time.monotonic()
    with Pool(soak.workers) as pool:
        record.level = pool.level
        source = programs(soak, pool.level)
        done = 0
        while lot := [trial for _, trial in zip(range(soak.every), source, strict=False)]:
            run_lot(pool, lot, record, soak.workers)
            done += len(lot)
            settle(pool, soak.workers)
            record.looks.append(lookout.look())
            rate = done / (time.monotonic() - began)
            say(
                f"{done:,} of {soak.programs:,}, {rate:.0f}/s, {record.wrong} not allowed; {short(record.looks[-1])}"
            )
    record.seconds = time.monotonic() - began
    return record


def run_lot(pool: Pool, lot: Sequence[Trial], record: Record, workers: int) -> None:
    """Have these judged, each under limits of its own, and hold the verdicts against the allowed ones."""
    waiting: deque[tuple[Trial, Future[Verdict]]] = deque()
    for trial in lot:
        waiting.append((trial, pool.submit(trial.program, trial.limits)))
        if len(waiting) >= _AHEAD * workers:
            note(record, *waiting.popleft())
    while waiting:
        note(record, *waiting.popleft())


def note(record: Record, trial: Trial, future: Future[Verdict]) -> None:
    """Wait for one verdict and count it."""
    verdict = future.result()
    record.verdicts[trial.kind][verdict.name] += 1
    record.spent[trial.kind] += verdict.wall_seconds
    if verdict.name not in trial.allowed:
        record.wrong += 1
        if len(record.faults) < _SHOWN:
            allowed = " or ".join(trial.allowed)
            record.faults.append(f"{trial.name}: {verdict.name} ({verdict.detail}) where {allowed} was due")


def settle(pool: Pool, workers: int) -> None:
    """Bring every worker to the same rest: programs too slow for one worker to run them all rebuild what is spent."""
    for program in _RESTING:
        futures = [pool.submit(program, Limits()) for _ in range(_ROUNDS * workers)]
        names = {future.result().name for future in futures}
        if names != {"passed"}:
            raise RuntimeError(f"a right program got {', '.join(sorted(names - {'passed'}))}")


def short(seen: Footprint) -> str:
    """One look in a line of progress."""
    memory = f"{seen.supervisor_mib:.0f}/{seen.worker_mib:.0f}/{seen.zygote_mib:.0f} MiB"
    descriptors = (
        f"{seen.supervisor_descriptors}/{seen.worker_descriptors}/{seen.zygote_descriptors} descriptors"
    )
    return f"{memory}, {descriptors}, {seen.processes} processes, {seen.groups} groups"


def table(record: Record) -> str:
    """A row a figure: at the first look, in the middle, at the end."""
    lines = ["| held at rest | start | middle | end | growth | allowed |", "|---|---|---|---|---|---|"]
    looks = record.looks
    for name, row in ROWS.items():
        seen = [getattr(one, name) for one in (looks[0], looks[len(looks) // 2], looks[-1])]
        cells = [*map(_figure, seen), _figure(record.growth(name)), _figure(row.tolerance)]
        lines.append(f"| {row.about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def counts(record: Record) -> str:
    """A row a kind of program: how many, which verdicts, how long each took."""
    lines = ["| programs | number | verdicts | ms each |", "|---|---|---|---|"]
    for name, verdicts in sorted(record.verdicts.items()):
        words = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
        total = verdicts.total()
        lines.append(f"| {name} | {total:,} | {words} | {1000 * record.spent[name] / total:.1f} |")
    return "\n".join(lines)


def outcome(record: Record) -> str:
    """In a sentence."""
    found = [f"{record.wrong:,} verdicts were not allowed"] * bool(record.wrong)
    found += [f"{ROWS[name].about} grew by {_figure(record.growth(name))}" for name in record.grown()]
    return "; ".join(found) or "every verdict was allowed, and nothing grew beyond its tolerance"


def page(soak: Soak, record: Record) -> str:
    """The whole page."""
    total = sum(verdicts.total() for verdicts in record.verdicts.values())
    head = (
        f"`{command()}`, {facts()}, {soak.workers} workers, level {record.level}; {total:,} programs in "
        f"{record.seconds / 60:.0f} minutes, {total / record.seconds:.0f}/s. Outcome: {outcome(record)}."
    )
    about = (
        f"A tenth of the programs, drawn with seed {soak.seed}, is hostile; the others are right and wrong programs in "
        f"all forms{', HumanEval among them' if soak.data else ''}. One pool runs them all. It was looked at after "
        f"every {soak.every:,} programs, at rest; start is the first look, when all jails are warm, and middle the one "
        "halfway. Memory is resident memory, pages shared with others included."
    )
    faults = "".join(f"\n- {fault}" for fault in record.faults)
    faults += "\n" * bool(faults)
    return f"""# A soak of the sandbox

{prose(head)}

{prose(about)}

{table(record)}
{faults}
## Verdicts

{counts(record)}
"""


def wishes() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run programs, a tenth hostile, and see that nothing grows.")
    parser.add_argument("--programs", type=int, default=PROGRAMS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=int, default=EVERY, help="programs between two looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print the tables, write them where asked, and fail where something grew or was judged wrongly."""
    wish = wishes()
    folder = os.environ.get("TEMPER_DATA")
    soak = Soak(wish.programs, wish.workers, wish.every, wish.seed, Path(folder) if folder else None)
    record = run(soak, lambda line: print(line, file=sys.stderr, flush=True))
    print(f"{table(record)}\n\n{counts(record)}\n")
    for fault in record.faults:
        print(fault)
    print(outcome(record))
    if wish.write:
        target = ROOT / "docs" / "results" / "sandbox_soak.md"
        target.write_text(page(soak, record), encoding="utf-8")
    sys.exit(0 if record.held else 1)


if __name__ == "__main__":
    main()
