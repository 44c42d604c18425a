"""What the other machines' ranks do, by what their launchers leave on the shared disk, and whether the head is up."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import protocol
from engine.heartbeat import PHASES, Beat
from launch.hang import Sight

# A launcher writes once a second; one that has not for so long is itself silent, or its disk.
STALE_SECONDS = 5.0
# Hundreds of launchers must not ask the shared disk all the time: only while their own ranks wait, and then less often.
LISTEN_AFTER_SECONDS = 2.0
LONG_SECONDS = 30.0
LISTEN_SECONDS = 2.0
PROBE_SECONDS = 2.0
# One lost packet is sent again within a second: a way is cut when this many tries in a row have failed.
PROBES = 2


@dataclass(slots=True)
class _Heard:
    """The last word of another machine's launcher, and when it came, on the clock of whoever listens."""

    time: float
    at: float
    ranks: list[dict[str, Any]]


class Others:
    """The other machines of an attempt.

    Args:
        folder: the run folder, where each launcher leaves what its ranks do.
        attempt: which start this is: what an earlier one left is not listened to.
        ranks: how many ranks they have together.
        head: where the ranks met; None on the head itself.
    """

    def __init__(self, folder: Path, attempt: str, ranks: int, head: tuple[str, int] | None) -> None:
        self.attempt = attempt
        self.ranks = ranks
        self.head = head
        self.sights: list[Sight] = []
        self._folder = folder / protocol.HEARTBEATS
        self._own = f"{protocol.host()}.json"
        self._heard: dict[str, _Heard] = {}
        self._silent: dict[str, float] = {}
        self._listened = -LISTEN_SECONDS
        self._probe: socket.socket | None = None
        self._began = 0.0
        self._tried: tuple[float, int, str] | None = None

    @property
    def unseen(self) -> int:
        """Ranks that nothing is known of now."""
        return self.ranks - len(self.sights)

    @property
    def unheard(self) -> tuple[str, tuple[int, ...], float] | None:
        """The machine that has been silent the longest, if one is: its name, its ranks, and for how long."""
        if not self._silent:
            return None
        host = max(self._silent, key=lambda one: self._silent[one])
        return host, tuple(row["rank"] for row in self._heard[host].ranks), self._silent[host]

    def look(self, now: float, silent: float) -> None:
        """Read what the others have left, if it is time to.

        Args:
            now: a clock that stands still while this process does.
            silent: for how long this machine's ranks have said nothing. While they go on nobody is missed.
        """
        if silent < LISTEN_AFTER_SECONDS:
            self._forget()
            return
        if now - self._listened < (LISTEN_SECONDS if silent > LONG_SECONDS else 0.0):
            return
        self._listened = now
        self._listen(now)
        ages = {host: now - heard.at for host, heard in self._heard.items()}
        self._silent = {host: age for host, age in ages.items() if age > STALE_SECONDS}
        seen = [
            _sight(host, row, ages[host])
            for host, heard in self._heard.items()
            if host not in self._silent
            for row in heard.ranks
        ]
        # Some alone say nothing: the one that is missing may be the one that all wait for.
        self.sights = sorted(seen, key=lambda sight: sight.rank) if len(seen) == self.ranks else []

    def _forget(self) -> None:
        self.sights, self._heard, self._silent, self._tried = [], {}, {}, None
        self._close()

    def _listen(self, now: float) -> None:
        there = {}
        for file in self._folder.glob("[!.]*.json"):
            if file.name == self._own:
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(file.read_bytes())
                if said["attempt"] != self.attempt or not said["ranks"]:
                    continue
                last = self._heard.get(said["host"])
                if last is None or last.time != said["time"]:
                    last = _Heard(said["time"], now, said["ranks"])
                there[said["host"]] = last
        # A launcher that has ended takes its file away: its ranks are missed by nobody.
        self._heard = there

    def cut(self, now: float) -> tuple[str, float, str] | None:
        """The head, for how many seconds it has been out of reach, and why; None where it is not."""
        if self.head is None:
            return None
        if self._probe is None:
            self._try(now)
        elif (code := self._answer(now)) is not None:
            self._close()
            self._note(now, code)
        if self._tried is None or self._tried[1] < PROBES:
            return None
        since, _, why = self._tried
        return f"{self.head[0]}, port {self.head[1]}", now - since, why

    def _try(self, now: float) -> None:
        assert self.head is not None
        self._began = now
        self._probe = socket.socket(socket.AF_INET6 if ":" in self.head[0] else socket.AF_INET)
        self._probe.setblocking(False)
        code = self._probe.connect_ex(self.head)
        if code not in (0, errno.EINPROGRESS):
            self._close()
            self._note(now, code)

    def _answer(self, now: float) -> int | None:
        """How the try went; None while it is under way."""
        assert self._probe is not None
        if select.select([], [self._probe], [], 0)[1]:
            return self._probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.ETIMEDOUT if now - self._began > PROBE_SECONDS else None

    def _note(self, now: float, code: int) -> None:
        # A machine that refuses is there.
        if code in (0, errno.ECONNREFUSED, errno.ECONNRESET):
            self._tried = None
            return
        since, tries, _ = self._tried or (self._began, 0, "")
        self._tried = since, tries + 1, os.strerror(code).lower()

    def _close(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def _sight(host: str, row: dict[str, Any], age: float) -> Sight:
    """A rank as its own machine's launcher saw it, so long ago."""
    nothing = dict.fromkeys(PHASES, 0.0)
    beat = Beat(
        pulse=0,
        count=row["count"],
        phase=row["phase"],
        step=row["step"],
        first=None,
        since=0.0,
        durations=() if row["usual"] is None else (row["usual"],),
        seconds=nothing,
        longest={**nothing, row["phase"]: row["longest"]},
    )
    stopped = row["stopped"] + age if row["state"] == "T" else row["stopped"]
    return Sight(row["rank"], host, beat, row["silent"] + age, row["state"], stopped)
