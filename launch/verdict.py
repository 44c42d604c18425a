"""How an attempt ended, decided from what the ranks left behind: one exit code and one sentence."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine import errors, protocol
from engine.protocol import Crash, Outcome
from launch.hang import Hang

# What ranks say when a peer is gone: true, and never the cause.
SECONDARY = re.compile(
    r"closed by peer|connection reset|broken pipe|connection refused|connection (was )?closed|communicator was aborted"
    r"|remote process exited|pair closure|process group .*abort|watchdog caught collective|other ranks? (failed|died)"
    r"|recvvalue failed|failed to recv|unable to read from socket|terminated by signal|got signal|\bSIGTERM\b",
    re.IGNORECASE,
)
TORCHRUN_FAILURE = re.compile(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*(-?\d+)")
SINGLE_FAILURE = re.compile(
    r"CalledProcessError: .* (?:died with <Signals\.\w+: (\d+)>|non-zero exit status (\d+))"
)
SAID_CODES = (errors.WRONG_WISH, errors.PREFLIGHT_FAILED, errors.PREEMPTED, errors.DO_NOT_REQUEUE)


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one rank's process as the agent saw it. `code` is negative for a signal, None where nobody saw it.

    `host` is told in the sentence where there are several.
    """

    rank: int
    code: int | None
    seconds: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a verdict is decided from.

    Attributes:
        verb: what the ranks were doing.
        processes: how many ranks there were to be.
        outcome: what the ranks wrote when they stopped by themselves.
        results: whether an evaluation's summary was written in this attempt.
        crashes: first error of each rank that could write one.
        deaths: ends of rank processes, in the order seen.
        launcher_code: exit code of `accelerate launch`; never decides alone.
        last_step: last step in metrics.jsonl.
        asked_to_stop: whether a signal asked for a stop at the step border.
        killed: why the agent killed the tree, if it did so before the ranks ended by themselves.
        hang: the ranks that kept the others waiting, if the tree was killed for that.
        places: where each rank's last heartbeat was, as ` at step 7, forward`.
    """

    verb: str
    processes: int
    outcome: Outcome | None = None
    results: bool = False
    crashes: tuple[Crash, ...] = ()
    deaths: tuple[Death, ...] = ()
    launcher_code: int | None = None
    last_step: int | None = None
    asked_to_stop: bool = False
    killed: str | None = None
    hang: Hang | None = None
    places: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ended.

    Attributes:
        exit_code: of the launcher.
        sentence: for a person.
        rank: the one that died first, if one did.
        gist: words that make the sentence needless where a rank has already printed them; empty: the sentence.
        lost: whether a machine was lost, so that others may do better.
    """

    exit_code: int
    sentence: str
    rank: int | None = None
    gist: str = ""
    lost: bool = False

    @property
    def restartable(self) -> bool:
        """Whether starting again may end otherwise: nobody asked for this end, and no wish was wrong."""
        return self.exit_code == errors.BUG and self.rank is not None


def decide(evidence: Evidence) -> Verdict:
    """One verdict for all ranks."""
    if evidence.killed == "user":
        return Verdict(errors.BUG, _killed_by_user(evidence))
    crash = _first_crash(evidence)
    death = _first_death(evidence, before=crash.seconds if crash else None)
    if _finished(evidence) and not crash:
        return Verdict(errors.DONE, _finished_sentence(evidence))
    if crash:
        return _crashed(evidence, crash)
    if evidence.hang:
        hang = evidence.hang
        return Verdict(errors.BUG, f"{hang.sentence}.", hang.ranks[0], lost=hang.machine)
    outcome = evidence.outcome
    if outcome and outcome.status == "preempted":
        where = f"saved at step {outcome.step}" + (f" in {outcome.checkpoint}" if outcome.checkpoint else "")
        sentence = f"Stopped as asked, {where}: run the same command again to continue."
        return Verdict(errors.PREEMPTED, sentence, gist=f"saved at step {outcome.step}")
    if death:
        return _died(evidence, death)
    if evidence.asked_to_stop:
        return Verdict(errors.PREEMPTED, _stopped_unsaved(evidence))
    if evidence.crashes:
        return _crashed(evidence, evidence.crashes[0])
    return _without_a_word(evidence)


def _stopped_unsaved(evidence: Evidence) -> str:
    if evidence.verb == "evaluate":
        return "Stopped as asked; the journal is kept: run it again."
    if evidence.last_step is not None:
        return (
            f"Stopped as asked after step {evidence.last_step}, but no rank said that it saved: "
            "run it again to continue from the last checkpoint."
        )
    return "Stopped as asked before the first step border; nothing new was there to save: run it again."


def _finished(evidence: Evidence) -> bool:
    if evidence.outcome is not None and evidence.outcome.status in ("finished", "early_stopped"):
        return True
    return evidence.verb == "evaluate" and evidence.results and evidence.launcher_code == 0


def _finished_sentence(evidence: Evidence) -> str:
    outcome = evidence.outcome
    if evidence.verb != "train" or outcome is None:
        return "Finished."
    how = (
        "Stopped early, as the metric stopped improving," if outcome.status == "early_stopped" else "Finished"
    )
    return f"{how} after step {outcome.step} in {duration(outcome.seconds)}."


def _first_crash(evidence: Evidence) -> Crash | None:
    """The earliest crash that is a cause; what ranks say about peers that left is set aside."""
    causes = [crash for crash in evidence.crashes if not secondary(crash)]
    if not causes:
        return None
    first = min(causes, key=lambda crash: crash.seconds)
    # A rank killed outright writes nothing; what others then write is its echo, in whatever words.
    killed = [death for death in evidence.deaths if death.code is not None and _violent(death, evidence)]
    wrote = {crash.rank for crash in evidence.crashes}
    earlier = [death for death in killed if death.seconds < first.seconds and death.rank not in wrote]
    return None if earlier else first


def _first_death(evidence: Evidence, before: float | None) -> Death | None:
    """The earliest end of a rank that was neither asked for nor explained by a crash file."""
    wrote = {crash.rank for crash in evidence.crashes}
    suspects = [
        death
        for death in evidence.deaths
        if death.rank not in wrote
        and (before is None or death.seconds < before)
        and not (evidence.asked_to_stop and death.code in (-signal.SIGTERM, -signal.SIGINT, errors.PREEMPTED))
    ]
    # Launchers end the ranks that are left with SIGTERM, so that is seldom how it began.
    return min(suspects, key=lambda death: (death.code == -signal.SIGTERM, death.seconds), default=None)


def primary_seconds(evidence: Evidence) -> float | None:
    """When the first rank died of itself, rather than of a peer's end; None where none did."""
    crash = _first_crash(evidence)
    if crash:
        return crash.seconds
    death = _first_death(evidence, before=None)
    return death.seconds if death and death.code not in (0, errors.PREEMPTED) else None


def _violent(death: Death, evidence: Evidence) -> bool:
    if death.code is None or death.code >= 0:
        return False
    return not (evidence.asked_to_stop and death.code in (-signal.SIGTERM, -signal.SIGINT))


def secondary(crash: Crash) -> bool:
    """Whether a crash only tells that some other rank had gone."""
    return crash.exit_code not in SAID_CODES and bool(SECONDARY.search(f"{crash.error}: {crash.message}"))


def _crashed(evidence: Evidence, crash: Crash) -> Verdict:
    code = crash.exit_code if crash.exit_code in SAID_CODES else errors.BUG
    if code in SAID_CODES:
        return Verdict(code, crash.message, crash.rank)
    where = f" at step {crash.step}" if crash.step is not None else ""
    phase = f", {crash.phase}" if crash.phase else ""
    followers = _followers(evidence, crash.rank)
    lines = crash.message.strip().splitlines()
    message = f": {lines[0]}" if lines else ""
    return Verdict(
        code,
        f"Rank {crash.rank} on {crash.host} died first{where}{phase}: {crash.error}{message}{followers}",
        crash.rank,
    )


def _died(evidence: Evidence, death: Death) -> Verdict:
    step = evidence.last_step
    logged = f" after step {step}" if step is not None else " before the first step"
    where = evidence.places.get(death.rank, logged)
    followers = _followers(evidence, death.rank)
    if death.code in SAID_CODES:
        return Verdict(death.code, f"Rank {death.rank} refused to go on; it says why above.", death.rank)
    if death.code == 0:
        how = "ended with exit code 0 without finishing its work"
    elif death.code is None:
        how = "ended without leaving word"
    elif death.code < 0:
        how = f"was killed by {signal_name(-death.code)}"
        if death.code == -signal.SIGKILL:
            how += " (the kernel does so when memory runs out: see dmesg, or lower train.micro_batch)"
    else:
        how = f"ended with exit code {death.code} and left no crash file"
    on = f" on {death.host}" if death.host else ""
    return Verdict(errors.BUG, f"Rank {death.rank}{on} died first{where}: it {how}{followers}", death.rank)


def _followers(evidence: Evidence, first: int) -> str:
    others = {death.rank for death in evidence.deaths} | {crash.rank for crash in evidence.crashes}
    count = len(others - {first})
    if not count:
        return "."
    return f"; {count} other{'s' if count > 1 else ''} followed."


def _killed_by_user(evidence: Evidence) -> str:
    outcome = evidence.outcome
    if outcome is not None and outcome.status == "preempted":
        return (
            f"Killed on request, after the state of step {outcome.step} was saved: run it again to continue."
        )
    at = f" after step {evidence.last_step}" if evidence.last_step is not None else ""
    return f"Killed on request{at}, without saving: run it again to continue from the newest checkpoint."


def _without_a_word(evidence: Evidence) -> Verdict:
    if evidence.launcher_code == 0:
        wanted = "outcome" if evidence.verb == "train" else "summary"
        return Verdict(
            errors.BUG,
            f"All {evidence.processes} ranks ended with exit code 0 and left no {wanted}: see the logs.",
        )
    step = evidence.last_step
    far = f"after step {step}; the same command resumes" if step else "before the first step"
    return Verdict(errors.BUG, f"accelerate launch {_ended(evidence.launcher_code)} {far}: see the logs.")


def _ended(code: int | None) -> str:
    return (
        f"was ended by {signal_name(-code)}" if code is not None and code < 0 else f"ended with code {code}"
    )


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reported_deaths(report: str, seconds: float) -> list[Death]:
    """Ends of ranks as accelerate and torchrun report them, for those that were gone before anyone could look."""
    deaths = [Death(int(rank), int(code), seconds) for rank, code in TORCHRUN_FAILURE.findall(report)]
    for number, status in SINGLE_FAILURE.findall(report):
        deaths.append(Death(0, -int(number) if number else int(status), seconds))
    return deaths


def results_since(folder: Path, seconds: float) -> bool:
    """Whether an evaluation's summary was written after `seconds`."""
    summaries = (folder / protocol.EVALUATIONS).glob("*/summary.json")
    return any(file.stat().st_mtime >= seconds for file in summaries)


def duration(seconds: float) -> str:
    """Seconds in two units at most, as sentences need them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
