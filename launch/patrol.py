"""Looks after the ranks of this machine while they run: their heartbeats, who hangs, and the stacks of all."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import heartbeat, protocol
from engine.heartbeat import Beat
from launch import processes
from launch.hang import Hang, Limits, Sight, judge, place

LOOK_SECONDS = 0.25
MIRROR_SECONDS = 1.0
STACKS_SECONDS = 2.0
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
        elsewhere: ranks on other machines.
    """

    def __init__(
        self, folder: Path, limits: Limits, *, lockstep: bool, expected: int, elsewhere: int = 0
    ) -> None:
        self.host = protocol.host()
        self.limits = limits
        self.lockstep = lockstep
        self.expected = expected
        self.elsewhere = elsewhere
        self.mirror = folder / protocol.HEARTBEATS / f"{self.host}.json"
        self.local = Path(
            tempfile.mkdtemp(prefix="temper-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        )
        self._seen: dict[int, _Seen] = {}
        self._named: Hang | None = None
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
        hang = judge(sights, self.limits, lockstep=self.lockstep, elsewhere=self.elsewhere)
        if hang is not None and not hang.over and self._named is None:
            say(f"{hang.sentence}{_outlook(hang)}")
            self.dump(pids)
        elif hang is None and self._named is not None:
            say(f"rank {' and '.join(map(str, self._named.ranks))} goes on")
        self._named = hang
        return hang if hang is not None and hang.over else None

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
            }
            for sight in sights
        ]
        partial = self.mirror.with_name(f".{self.mirror.name}.partial")
        # Not synced to the disk: it is for a glance, and the next one follows. A full disk must not end a run.
        with suppress(OSError):
            self.mirror.parent.mkdir(exist_ok=True)
            partial.write_text(json.dumps({"host": self.host, "time": protocol.now(), "ranks": ranks}) + "\n")
            partial.replace(self.mirror)


def _outlook(hang: Hang) -> str:
    if hang.patience == float("inf"):
        return "; the run goes on"
    return f"; the run is ended when that lasts {hang.patience:.0f} s"


def _short(file: str) -> str:
    """A source file as its package names it."""
    _, packages, below = file.rpartition("site-packages/")
    return below if packages else file
