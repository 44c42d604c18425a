"""Looks after the ranks of this machine while they run: their heartbeats, who hangs, and the stacks of all."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine import heartbeat, protocol
from engine.heartbeat import Beat
from launch import processes
from launch.hang import Hang, Limits, Sight, cut_off, judge, place, unheard, usual
from launch.others import Others

LOOK_SECONDS = 0.25
MIRROR_SECONDS = 1.0
STACKS_SECONDS = 2.0
# How long the launcher beside ranks that hang has to end them, before another's does.
FOREIGN_SECONDS = 15.0
MEMORY = Path("/dev/shm")
_FRAME = re.compile(r'Current thread .*\n  File "([^"]+)", line (\d+) in (\S+)')


@dataclass(slots=True)
class _Seen:
    """The last sign of life of a rank, when it was seen on the patrol's own clock, and when it was last not stopped."""

    pulse: int
    at: float
    free: float


class Patrol:
    """The heartbeats of one attempt on this machine.

    Args:
        folder: the run folder, where others can read what this machine's ranks do.
        limits: how long silence is borne.
        lockstep: whether ranks wait for each other at every step.
        expected: ranks on this machine.
        others: the other machines' ranks, where there are some.
    """

    def __init__(
        self, folder: Path, limits: Limits, *, lockstep: bool, expected: int, others: Others | None = None
    ) -> None:
        self.host = protocol.host()
        self.limits = limits
        self.lockstep = lockstep
        self.expected = expected
        self.others = others
        self.mirror = folder / protocol.HEARTBEATS / f"{self.host}.json"
        self.local = Path(
            tempfile.mkdtemp(prefix="temper-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        )
        self._seen: dict[int, _Seen] = {}
        self._named: Hang | None = None
        self._said: set[tuple[int, ...]] = set()
        self._foreign: float | None = None
        # Time this process was itself stopped, or not given the CPU, is no silence of the ranks.
        self._clock = 0.0
        self._looked = self._mirrored = time.monotonic()

    def look(self, pids: Mapping[int, int], say: Callable[[str], None]) -> Hang | None:
        """A hang that it is time to end the run for; one that is only named is said, once.

        Args:
            pids: process of each rank.
            say: told of a rank that keeps the others waiting, and when it goes on.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return None
        self._clock += min(now - self._looked, 4 * LOOK_SECONDS)
        self._looked = now
        sights = self.sights(pids)
        if now - self._mirrored > MIRROR_SECONDS:
            self._mirrored = now
            self._reflect(sights)
        if len(sights) < self.expected:
            return None
        hang = self._judged(sights)
        if hang is None:
            self._said.clear()
        elif not hang.over and hang.ranks not in self._said:
            self._said.add(hang.ranks)
            say(f"{hang.sentence}{_outlook(hang)}")
            self.dump(pids)
        if hang is None and self._named is not None:
            say(f"rank {' and '.join(map(str, self._named.ranks))} goes on")
        self._named = hang
        return hang if hang is not None and hang.over else None

    def _judged(self, sights: list[Sight]) -> Hang | None:
        """Who keeps the others waiting, here or on another machine."""
        others = self.others
        if others is None:
            return judge(sights, self.limits, lockstep=self.lockstep)
        silent = min(sight.silent for sight in sights)
        others.look(self._clock, silent)
        hang = judge([*sights, *others.sights], self.limits, lockstep=self.lockstep, elsewhere=others.unseen)
        if self.lockstep and silent > usual(sights):
            if cut := others.cut(self._clock):
                return cut_off(sights, self.limits, *cut)
            if hang is None and (lost := others.unheard):
                return unheard(sights, self.limits, *lost)
        return self._left_to_its_own(hang, sights)

    def _left_to_its_own(self, hang: Hang | None, sights: list[Sight]) -> Hang | None:
        """A hang of another machine's ranks is ended there, where their stacks are; here only if it is not."""
        if hang is None or not hang.over or {sight.rank for sight in sights} & set(hang.ranks):
            self._foreign = None
            return hang
        if self._foreign is None:
            self._foreign = self._clock
        if self._clock - self._foreign > FOREIGN_SECONDS:
            return hang
        return replace(hang, over=False, patience=hang.patience + FOREIGN_SECONDS)

    def sights(self, pids: Mapping[int, int]) -> list[Sight]:
        """Every rank that has begun to tell where it is."""
        found = []
        for rank, pid in sorted(pids.items()):
            beat, process = self.beat(rank), processes.read(pid)
            if beat is None or process is None or process.state in "ZX":
                continue
            seen = self._seen.get(rank)
            if seen is None or seen.pulse != beat.pulse:
                seen = self._seen[rank] = _Seen(beat.pulse, self._clock, self._clock)
            if process.state != "T":
                seen.free = self._clock
            silent, stopped = self._clock - seen.at, self._clock - seen.free
            found.append(Sight(rank, self.host, beat, silent, process.state, stopped))
        return found

    def beat(self, rank: int) -> Beat | None:
        """The last heartbeat of a rank, which outlives it."""
        return heartbeat.read(heartbeat.page(self.local, rank))

    def places(self, ranks: Iterable[int]) -> dict[int, str]:
        """Where each of these ranks was last, as ` at step 7, forward`."""
        beats = {rank: self.beat(rank) for rank in ranks}
        return {rank: place(beat) for rank, beat in beats.items() if beat is not None}

    def dump(self, pids: Mapping[int, int]) -> dict[int, str]:
        """Have every rank that can write its stacks; the innermost frame of each that did, as `name at file:line`.

        A rank that has not begun is left alone, since the signal would end it; a stopped one cannot answer.
        """
        asked = {}
        for rank, pid in pids.items():
            process = processes.read(pid)
            if self.beat(rank) is None or process is None or process.state in "TtZX":
                continue
            file = heartbeat.stacks(self.local, rank)
            with suppress(OSError):
                asked[rank] = file.stat().st_size
                os.kill(pid, heartbeat.STACKS_SIGNAL)
        deadline = time.monotonic() + STACKS_SECONDS
        frames: dict[int, str] = {}
        while len(frames) < len(asked) and time.monotonic() < deadline:
            time.sleep(0.05)
            for rank, before in asked.items():
                text = heartbeat.stacks(self.local, rank).read_bytes()[before:].decode(errors="replace")
                if found := _FRAME.search(text):
                    frames[rank] = f"{found[3]} at {_short(found[1])}:{found[2]}"
        return frames

    def stacks(self) -> list[Path]:
        """Files of stacks that were written."""
        return [file for file in sorted(self.local.glob("stacks-*.txt")) if file.stat().st_size]

    def close(self) -> None:
        """Forget the heartbeats."""
        shutil.rmtree(self.local, ignore_errors=True)
        with suppress(OSError):
            self.mirror.unlink(missing_ok=True)

    def _reflect(self, sights: list[Sight]) -> None:
        """Leave what the ranks do where other machines, and `temper watch`, can read it."""
        ranks = [
            {
                "rank": sight.rank,
                "step": sight.beat.step,
                "phase": sight.beat.phase,
                "silent": round(sight.silent, 1),
                "state": sight.state,
                "stopped": round(sight.stopped, 1),
                "count": sight.beat.count,
                "usual": statistics.median(sight.beat.durations) if sight.beat.durations else None,
                "longest": sight.beat.longest[sight.beat.phase],
            }
            for sight in sights
        ]
        partial = self.mirror.with_name(f".{self.mirror.name}.partial")
        # Not synced to the disk: it is for a glance, and the next one follows. A full disk must not end a run.
        with suppress(OSError):
            self.mirror.parent.mkdir(exist_ok=True)
            attempt = self.others.attempt if self.others else None
            mirror = {"host": self.host, "attempt": attempt, "time": protocol.now(), "ranks": ranks}
            partial.write_text(json.dumps(mirror) + "\n")
            partial.replace(self.mirror)


def _outlook(hang: Hang) -> str:
    if hang.patience == float("inf"):
        return "; the run goes on"
    return f"; the run is ended when that lasts {hang.patience:.0f} s"


def _short(file: str) -> str:
    """A source file as its package names it."""
    _, packages, below = file.rpartition("site-packages/")
    return below if packages else file
