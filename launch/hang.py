"""Who hangs: decided from the ranks' heartbeats and the kernel's word on their processes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.heartbeat import STEP_PHASES, Beat

# All ranks are silent within a step of the one they wait for: with these two, it is named within three steps and 5 s.
USUAL_STEPS = 2
FLOOR_SECONDS = 4.0
# TCP outlives a cut of some seconds; one that lasts does not mend by itself while all ranks wait.
CUT_SECONDS = 20.0
# A phase may take this many times the longest it has taken in this attempt.
LONGEST_TIMES = 10.0
# Tokenising a corpus, fetching weights or sampling a benchmark may take hours, in which a rank has nothing to say.
LONG_PHASES = ("start", "prepare", "model", "rehearse", "resume", "evaluate")
COLLECTIVE = "torch/distributed/"
STATES = {
    "T": "stopped (state T)",
    "t": "held by a debugger (state t)",
    "D": "in uninterruptible sleep (state D), as on a disk or network file system that hangs",
    "R": "computing (state R)",
    "S": "sleeping (state S)",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """One rank as seen from outside.

    Attributes:
        silent: seconds since its last heartbeat.
        state: the kernel's letter for its process.
        stopped: seconds it has been in state T without a break.
    """

    rank: int
    host: str
    beat: Beat
    silent: float
    state: str
    stopped: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long silence is borne.

    Attributes:
        in_step: seconds in a phase of the step before the run is ended; 0: it never is.
        elsewhere: the same for saving, validating and finishing; what comes before the first step has no limit.
    """

    in_step: float
    elsewhere: float

    def patience(self, beat: Beat) -> float:
        """Seconds of silence after which a rank in this phase will not come back."""
        if not self.in_step or beat.phase in LONG_PHASES:
            return math.inf
        floor = self.in_step if beat.phase in STEP_PHASES else self.elsewhere
        return max(floor, LONGEST_TIMES * beat.longest[beat.phase])


@dataclass(frozen=True, slots=True)
class Hang:
    """Ranks that do not come forward.

    Attributes:
        ranks: those to blame; all of them where none is behind the others.
        sentence: for a person, without an end mark.
        over: whether it is time to end the run.
        patience: seconds of silence after which it will be.
        machine: whether a whole machine is out of reach.
    """

    ranks: tuple[int, ...]
    sentence: str
    over: bool
    patience: float
    machine: bool = False


def judge(sights: Sequence[Sight], limits: Limits, *, lockstep: bool, elsewhere: int = 0) -> Hang | None:
    """Who keeps the others waiting; None where all is well or there is nothing to say yet.

    Args:
        sights: every rank that can be seen.
        limits: how long silence is borne.
        lockstep: whether ranks wait for each other at every step, as in training.
        elsewhere: ranks that cannot be seen, which may be the ones waited for: then only a stopped one is sure.
    """
    steps = [seconds for sight in sights for seconds in sight.beat.durations]
    limit = usual(sights)
    stopped = [sight for sight in sights if min(sight.stopped, sight.silent) > limit]
    if stopped and (elsewhere or any(sight.state != "T" for sight in sights)):
        # Nothing slow looks like this, so nothing is waited for. All stopped would be somebody's pause.
        waiting = len(sights) + elsewhere - len(stopped)
        return _blame(stopped, waiting, over=limits.in_step > 0, patience=limit)
    if elsewhere or not lockstep or any(sight.silent < limit for sight in sights):
        return None
    last = min(sight.beat.count for sight in sights)
    behind = [sight for sight in sights if sight.beat.count == last]
    patience = max(limit, *(limits.patience(sight.beat) for sight in behind))
    over = all(sight.silent > patience for sight in behind)
    if len(behind) < len(sights):
        # A first step may take any rank longer than another: what is usual is not known yet.
        named = over or (bool(steps) and behind[0].beat.phase in STEP_PHASES)
        return _blame(behind, len(sights) - len(behind), over=over, patience=patience) if named else None
    # Held in the very phase in which the others wait for it.
    stuck = [sight for sight in behind if sight.state in ("D", "t")]
    if stuck and len(stuck) < len(behind):
        return _blame(stuck, len(sights) - len(stuck), over=over, patience=patience)
    return _all_the_same(sights, patience) if over else None


def usual(sights: Sequence[Sight]) -> float:
    """Seconds of silence that are more than usual."""
    steps = [seconds for sight in sights for seconds in sight.beat.durations]
    return FLOOR_SECONDS + USUAL_STEPS * (statistics.median(steps) if steps else 0.0)


def unheard(sights: Sequence[Sight], limits: Limits, host: str, ranks: Sequence[int], silent: float) -> Hang:
    """The ranks of a machine of which nothing is heard any more, while those that are seen wait.

    Args:
        sights: the ranks that are seen.
        limits: how long silence is borne.
        host: the machine.
        ranks: its ranks.
        silent: seconds since its launcher last wrote.
    """
    patience = max(limits.patience(sight.beat) for sight in sights)
    count = len(sights)
    sentence = (
        f"Nothing has been heard of {host} for {silent:.0f} s, neither of its rank{'s' * (len(ranks) > 1)} "
        f"{' and '.join(map(str, ranks))} nor of its launcher, while {count} rank{'s wait' if count > 1 else ' waits'}"
        f"{place(sights[0].beat)}"
    )
    return Hang(tuple(ranks), sentence, silent > patience, patience, machine=True)


def cut_off(sights: Sequence[Sight], limits: Limits, head: str, seconds: float, why: str) -> Hang:
    """This machine's ranks, whose way to the head is cut.

    Args:
        sights: those ranks.
        limits: how long silence is borne.
        head: where the ranks met.
        seconds: since when it cannot be reached.
        why: what the attempt to reach it met with.
    """
    borne = max(limits.patience(sight.beat) for sight in sights)
    patience = math.inf if math.isinf(borne) else min(CUT_SECONDS, borne)
    names = " and ".join(str(sight.rank) for sight in sights)
    sentence = (
        f"Rank{'s' * (len(sights) > 1)} {names} on {sights[0].host} cannot reach the head {head}, for "
        f"{seconds:.0f} s now{place(sights[0].beat)}: {why}"
    )
    ranks = tuple(sight.rank for sight in sights)
    return Hang(ranks, sentence, seconds > patience, patience, machine=True)


def told_apart(hang: Hang, sights: Sequence[Sight], frames: Mapping[int, str]) -> Hang:
    """A hang with what the stacks say: where the ones to blame are, and who they are if none was behind."""
    if {sight.rank for sight in sights} <= set(hang.ranks) and len(sights) > 1:
        apart = [sight for sight in sights if sight.rank in outliers(frames)]
        if apart:
            hang = _blame(apart, len(sights) - len(apart), over=hang.over, patience=hang.patience)
    frame = frames.get(hang.ranks[0])
    return replace(hang, sentence=f"{hang.sentence}, in {frame}") if frame else hang


def _blame(culprits: Sequence[Sight], waiting: int, *, over: bool, patience: float) -> Hang:
    first = culprits[0]
    names = " and ".join(f"{sight.rank}" for sight in culprits)
    many = len(culprits) > 1
    others = f"{waiting} other{'s wait' if waiting > 1 else ' waits'}"
    sentence = (
        f"Rank{'s' if many else ''} {names} on {first.host} {'have' if many else 'has'} been silent"
        f" for {first.silent:.0f} s{place(first.beat)}, while {others} for {'them' if many else 'it'}:"
        f" {STATES.get(first.state, f'state {first.state}')}"
    )
    return Hang(tuple(sight.rank for sight in culprits), sentence, over, patience)


def _all_the_same(sights: Sequence[Sight], patience: float) -> Hang:
    first = sights[0]
    who = f"All {len(sights)} ranks have" if len(sights) > 1 else f"Rank {first.rank} on {first.host} has"
    none = ", and none is behind the others" if len(sights) > 1 else ""
    return Hang(
        tuple(sight.rank for sight in sights),
        f"{who} been silent for {min(sight.silent for sight in sights):.0f} s{place(first.beat)}{none}:"
        f" {STATES.get(first.state, f'state {first.state}')}",
        True,
        patience,
    )


def outliers(frames: Mapping[int, str]) -> set[int]:
    """Ranks that are elsewhere than those that wait, by the innermost frame of each; empty where that tells nothing.

    Ranks that wait for each other stand in the same collective: the few that do not are the ones waited for.
    """
    waiting = {rank for rank, frame in frames.items() if COLLECTIVE in frame}
    others = frames.keys() - waiting
    if waiting and others:
        return set(others)
    groups = Counter(frames.values())
    frame, most = groups.most_common(1)[0] if groups else ("", 0)
    return {rank for rank in frames if frames[rank] != frame} if 2 * most > len(frames) else set()


def place(beat: Beat) -> str:
    """` at step 7, forward`, as sentences need it."""
    return f" at step {beat.step}, {beat.phase}" if beat.step is not None else f" in phase {beat.phase}"
