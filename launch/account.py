"""The account of one attempt: its log folder while it runs, and its line in attempts.jsonl when it has ended."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from engine import errors, protocol
from engine.heartbeat import Beat
from launch import attempts
from launch.attempts import Attempt
from launch.command import LaunchPlan
from launch.console import gather_rank_logs
from launch.hang import place
from launch.patrol import Patrol
from launch.verdict import Verdict

RESERVED = 128 * 1024
"""Bytes held back for the account, so that a run that fills its disk can still be told about."""


class Account:
    """Opened before the first process of an attempt starts.

    Args:
        plan: what is started.
        patrol: whose heartbeats say how far it came and where the time went.
        alone: whether this machine's launcher writes the attempt down; of several, the lead does so for all.
    """

    def __init__(self, plan: LaunchPlan, patrol: Patrol, *, alone: bool = True) -> None:
        self.plan = plan
        self.patrol = patrol
        self.alone = alone
        self.number = attempts.next_number(plan.folder) if alone else 0
        self.logs = attempts.log_folder(plan.folder, self.number) if alone else plan.logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self._reserve = self.logs / f".reserve-{plan.node}"
        self._reserve.write_bytes(bytes(RESERVED))
        self.started = protocol.now()
        self.saved_before = attempts.saved_step(plan.folder)

    def close(self, verdict: Verdict, asked: str | None) -> Verdict:
        """Write the attempt down; the verdict, changed where the attempts together show that there is no hope.

        Args:
            verdict: how this attempt ended.
            asked: the signal that asked it to stop, if one did.
        """
        attempt, verdict = in_view_of_all(self.plan.folder, self.attempt(verdict, asked), verdict)
        self.keep(attempt)
        return verdict

    def last_words(self) -> None:
        """Write the attempt down in place of a launcher that was killed, once its ranks are gone."""
        beat = self.patrol.beat(self.plan.first_rank)
        where = place(beat) if beat is not None else " before the ranks had begun"
        sentence = f"The launcher was killed{where}; what it had started was killed after it."
        attempt = replace(self.attempt(Verdict(errors.BUG, sentence), None), exit_code=None)
        self.keep(attempt if self.alone else None)

    def attempt(self, verdict: Verdict, asked: str | None) -> Attempt:
        """This attempt as it will be written down."""
        beat = self.patrol.beat(self.plan.first_rank)
        return Attempt(
            number=self.number,
            verb=self.plan.verb,
            hosts=(self.patrol.host,),
            ranks=self.plan.world_size,
            started=round(self.started, 3),
            ended=round(protocol.now(), 3),
            first_step=beat.first if beat else None,
            last_step=beat.step if beat else None,
            saved_before=self.saved_before,
            saved=attempts.saved_step(self.plan.folder),
            asked=asked,
            exit_code=verdict.exit_code,
            rank=verdict.rank,
            sentence=verdict.sentence,
            seconds=_seconds(beat),
        )

    def keep(self, attempt: Attempt | None = None) -> None:
        """Write this line, if one is given, put the logs in their place, and forget the heartbeats."""
        try:
            self._reserve.unlink(missing_ok=True)
            if attempt is not None:
                attempts.append(self.plan.folder, attempt)
            gather_rank_logs(self.plan.rank_logs, self.logs, self.plan.first_rank)
            places = (self.plan.folder, self.patrol.local) if self.alone else (self.patrol.local,)
            for folder in places:
                for crash in (folder / protocol.CRASH).glob("rank-*.json"):
                    shutil.copy(crash, self.logs / f"crash-{crash.name}")
            for file in self.patrol.stacks():
                shutil.copy(file, self.logs)
        except OSError as error:
            # A full disk may be what ended the attempt: the verdict must still be said.
            not_whole(error)
        attempts.prune_logs(self.plan.folder)
        self.patrol.close()


def in_view_of_all(folder: Path, attempt: Attempt, verdict: Verdict) -> tuple[Attempt, Verdict]:
    """An attempt that has ended and its verdict, changed where the attempts together show that there is no hope."""
    why = attempts.hopeless([*attempts.read(folder), attempt])
    if why is None:
        return attempt, verdict
    verdict = replace(verdict, exit_code=errors.DO_NOT_REQUEUE, sentence=f"{verdict.sentence} {why}")
    return replace(attempt, exit_code=verdict.exit_code, sentence=verdict.sentence), verdict


def not_whole(error: OSError) -> None:
    """Tell that something of an account could not be written."""
    told = f"the account of this attempt is not whole: {error}"
    print(errors.spoken(told), file=sys.stderr, flush=True)


def _seconds(beat: Beat | None) -> dict[str, float]:
    """Seconds of each phase that took any, the one that was under way at the end included."""
    if beat is None:
        return {}
    seconds = dict(beat.seconds)
    seconds[beat.phase] += max(0.0, time.monotonic() - beat.since)
    return {phase: round(value, 3) for phase, value in seconds.items() if value > 0}
