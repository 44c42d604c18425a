"""What was found of judges on a workload: figures by round, and verdicts held against what they should be."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from .bench import Bench, Slice
from .task import FAILED, PASSED, TIMED_OUT, Setting

_WARM = 8
_SINGLE = 500
"""Programs whose latency is taken one by one, for judges that do not show it when they run many."""
_SAMPLED = 200
"""Programs that run while memory is sampled: a pass of its own, for sampling takes time from the judge."""


@dataclass(frozen=True, slots=True)
class Round:
    """One judge's figures in one round."""

    rate: float
    """Programs a second."""
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    verdicts: str


@dataclass(frozen=True, slots=True)
class Peak:
    """Most memory of a judge's processes together, and how it was summed."""

    mib: float
    summed: str


@dataclass(slots=True)
class Record:
    """All that was found of one judge on one workload."""

    note: str = ""
    rounds: list[Round] = field(default_factory=list)
    peak: Peak | None = None

    def median(self, name: str) -> float:
        """Of one of the figures over the rounds."""
        return statistics.median(getattr(one, name) for one in self.rounds)

    def ratio(self, other: Record) -> float:
        """Of programs/s to another's: the median of the rounds' ratios, as disturbances fell on both."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return statistics.median(mine.rate / theirs.rate for mine, theirs in pairs)


def measure(bench: Bench, count: int) -> Round:
    """A warm-up, then all programs; latency from that pass or, where it does not show it, from one more."""
    bench.run(Slice(0, min(_WARM, count)))
    answer = bench.run(Slice(0, count))
    seconds = answer.seconds
    if bench.has_single:
        seconds = bench.run(_spread(count, _SINGLE), single=True).seconds
    p50, p99 = (1000 * _quantile(seconds, share) for share in (0.5, 0.99))
    return Round(count / answer.wall, 1000 * answer.cpu / count, p50, p99, answer.verdicts)


def weigh(bench: Bench, count: int) -> Peak:
    """Memory at its largest over some of the programs."""
    return Peak(*bench.peak(_spread(count, _SAMPLED)))


def _spread(count: int, most: int) -> Slice:
    return Slice(0, count, -(-count // most))


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def wanted(setting: Setting, records: list[Record]) -> list[str | None]:
    """P or F for every program; by majority where nobody knows, None where that is even."""
    kinds = [setting.tasks[index].kind for index in setting.order]
    known = {"right": PASSED, "wrong": FAILED, "loop": FAILED}
    return [
        known[kind] if kind in known else _majority([record.rounds[0].verdicts[place] for record in records])
        for place, kind in enumerate(kinds)
    ]


def _majority(said: list[str]) -> str | None:
    passes = said.count(PASSED)
    if 2 * passes == len(said):
        return None
    return PASSED if 2 * passes > len(said) else FAILED


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts of all rounds against the right ones."""

    known: int
    false_failures: int
    false_passes: int
    loops: int
    loops_named: int
    """Loops whose verdict was a timeout rather than a failure."""


def tally(setting: Setting, record: Record, right: list[str | None]) -> Tally:
    """Count over all rounds."""
    loops = [place for place, index in enumerate(setting.order) if setting.tasks[index].kind == "loop"]
    known = failures = passes = named = 0
    for one in record.rounds:
        pairs = list(zip(right, one.verdicts, strict=True))
        known += sum(want is not None for want, _ in pairs)
        failures += sum(want == PASSED != said for want, said in pairs)
        passes += sum(want == FAILED and said == PASSED for want, said in pairs)
        named += sum(one.verdicts[place] == TIMED_OUT for place in loops)
    return Tally(known, failures, passes, len(loops) * len(record.rounds), named)
