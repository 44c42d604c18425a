"""The account of one attempt: its log folder while it runs, and its line in attempts.jsonl when it has ended."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace

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
    """

    def __init__(self, plan: LaunchPlan, patrol: Patrol) -> None:
        self.plan = plan
        self.patrol = patrol
        self.number = attempts.next_number(plan.folder)
        self.logs = attempts.log_folder(plan.folder, self.number)
        self.logs.mkdir(parents=True, exist_ok=True)
        self._reserve = self.logs / ".reserve"
        self._reserve.write_bytes(bytes(RESERVED))
        self.started = protocol.now()
        self.saved_before = attempts.saved_step(plan.folder)

    def close(self, verdict: Verdict, asked: str | None) -> Verdict:
        """Write the attempt down; the verdict, changed where the attempts together show that there is no hope.

        Args:
            verdict: how this attempt ended.
            asked: the signal that asked it to stop, if one did.
        """
        attempt = self._attempt(verdict.sentence, verdict.exit_code, verdict.rank, asked)
        why = attempts.hopeless([*attempts.read(self.plan.folder), attempt])
        if why is not None:
            verdict = replace(verdict, exit_code=errors.DO_NOT_REQUEUE, sentence=f"{verdict.sentence} {why}")
            attempt = replace(attempt, exit_code=verdict.exit_code, sentence=verdict.sentence)
        self._write(attempt)
        return verdict

    def last_words(self) -> None:
        """Write the attempt down in place of a launcher that was killed, once its ranks are gone."""
        beat = self.patrol.beat(0)
        where = place(beat) if beat is not None else " before the ranks had begun"
        sentence = f"The launcher was killed{where}; what it had started was killed after it."
        self._write(self._attempt(sentence, None, None, None))

    def _attempt(self, sentence: str, code: int | None, rank: int | None, asked: str | None) -> Attempt:
        beat = self.patrol.beat(0)
        return Attempt(
            number=self.number,
            verb=self.plan.verb,
            hosts=(self.patrol.host,),
            ranks=self.plan.processes,
            started=round(self.started, 3),
            ended=round(protocol.now(), 3),
            first_step=beat.first if beat else None,
            last_step=beat.step if beat else None,
            saved_before=self.saved_before,
            saved=attempts.saved_step(self.plan.folder),
            asked=asked,
            exit_code=code,
            rank=rank,
            sentence=sentence,
            seconds=_seconds(beat),
        )

    def _write(self, attempt: Attempt) -> None:
        try:
            self._reserve.unlink(missing_ok=True)
            attempts.append(self.plan.folder, attempt)
            gather_rank_logs(self.plan.logs, self.logs)
            for crash in (self.plan.folder / protocol.CRASH).glob("rank-*.json"):
                shutil.copy(crash, self.logs / f"crash-{crash.name}")
            for crash in (self.patrol.local / protocol.CRASH).glob("rank-*.json"):
                shutil.copy(crash, self.logs / f"crash-{crash.name}")
            for file in self.patrol.stacks():
                shutil.copy(file, self.logs)
        except OSError as error:
            # A full disk may be what ended the attempt: the verdict must still be said.
            print(f"temper: the account of this attempt is not whole: {error}", file=sys.stderr, flush=True)
        attempts.prune_logs(self.plan.folder)
        self.patrol.close()


def _seconds(beat: Beat | None) -> dict[str, float]:
    """Seconds of each phase that took any, the one that was under way at the end included."""
    if beat is None:
        return {}
    seconds = dict(beat.seconds)
    seconds[beat.phase] += max(0.0, time.monotonic() - beat.since)
    return {phase: round(value, 3) for phase, value in seconds.items() if value > 0}
