"""What each node leaves about its own ranks, how a node hears of its peers' ends, and one verdict from all of it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from engine import errors, protocol
from launch import attempts
from launch.account import in_view_of_all, not_whole
from launch.hang import Hang
from launch.records import last_step
from launch.verdict import Death, Evidence, Verdict, decide, primary_seconds, results_since

FOLDER = "nodes"
VERDICT = "verdict.json"
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """How one node's part of an attempt ended.

    Attributes:
        node: its number.
        host: its name.
        code: what its agent ended with: 0, 75 asked to stop, anything else: the others must end too.
        seconds: when, wall clock.
        deaths: ends of its ranks, by their numbers among all ranks.
        launcher_code: exit code of its `accelerate launch`.
        asked: whether it was asked to stop.
        killed: why its agent killed the ranks, if it did.
        said: why its agent refused to start them, if it did.
        hang: its ranks that kept the others waiting, if its agent ended them for that.
        places: where each of its ranks was last.
        part: its account of the attempt.
        lost: whether its agent ended without a word, so that someone else wrote this.
        unreached: whether what ended was the ssh that led to it.
        orphaned: whether it was its watchdog that wrote this.
    """

    node: int
    host: str
    code: int
    seconds: float
    deaths: tuple[Death, ...] = ()
    launcher_code: int | None = None
    asked: bool = False
    killed: str | None = None
    said: str = ""
    hang: Hang | None = None
    places: dict[int, str] = field(default_factory=dict)
    part: attempts.Attempt | None = None
    lost: bool = False
    unreached: bool = False
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of one submission on all its nodes; `seconds` is when it began."""

    folder: Path
    name: str
    seconds: float

    @property
    def reports(self) -> Path:
        """Where nodes report to."""
        return self.folder / FOLDER / self.name


REPORT = TypeAdapter(Report)


class Peers:
    """The other nodes of an attempt, as one of them sees them: through the files they leave on the shared disk."""

    def __init__(self, attempt: Attempt, node: int, host: str) -> None:
        self.attempt, self.node, self.host = attempt, node, host
        self._next = 0.0

    def failed(self) -> bool:
        """Whether another node has ended badly, or the lead has given this one up: its ranks wait in vain."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_SECONDS
        return any(
            report.code not in (errors.DONE, errors.PREEMPTED) and (report.node != self.node or report.lost)
            for report in read(self.attempt)
        )

    def tell(self, evidence: Evidence, verdict: Verdict, part: attempts.Attempt | None = None) -> Verdict:
        """Report this node's end; returns what its agent ends with."""
        code = _node_code(evidence, verdict)
        deaths = tuple(replace(death, host=self.host) for death in evidence.deaths)
        # A lead that lost the way to this node has said so: that it still ended by itself is no news.
        before = self._own()
        leave(
            self.attempt,
            Report(
                node=self.node,
                host=self.host,
                code=code,
                seconds=before.seconds if before else protocol.now(),
                deaths=deaths,
                launcher_code=evidence.launcher_code,
                asked=evidence.asked_to_stop,
                killed=evidence.killed,
                hang=evidence.hang,
                places=dict(evidence.places),
                part=part,
                lost=before is not None,
                unreached=before is not None and before.unreached,
            ),
        )
        return replace(verdict, exit_code=code)

    def orphaned(self, code: int, places: Mapping[int, str]) -> None:
        """Report in place of an agent that was killed, once its ranks are gone."""
        before = self._own()
        seconds = before.seconds if before else protocol.now()
        leave(
            self.attempt,
            Report(self.node, self.host, code, seconds, places=dict(places), lost=True, orphaned=True),
        )

    def _own(self) -> Report | None:
        """What another has written about this node."""
        return next((report for report in read(self.attempt) if report.node == self.node), None)


def _node_code(evidence: Evidence, verdict: Verdict) -> int:
    """0 or 75 where this node's ranks did what they should, whatever is still going on elsewhere."""
    if evidence.killed is None and evidence.launcher_code == 0:
        return errors.DONE
    codes = {death.code for death in evidence.deaths if death.code is not None}
    left = {errors.DONE, errors.PREEMPTED, *((-signal.SIGTERM,) if evidence.asked_to_stop else ())}
    if evidence.killed is None and codes and codes <= left:
        return errors.PREEMPTED
    return verdict.exit_code if verdict.exit_code not in (errors.DONE, errors.PREEMPTED) else errors.BUG


def write(attempt: Attempt, report: Report) -> None:
    """Leave a node's report."""
    protocol.write_json(attempt.reports / f"node-{report.node}.json", REPORT.dump_python(report, mode="json"))


def leave(attempt: Attempt, report: Report) -> bool:
    """Leave a node's report where there is room for it; else tell that there was none."""
    try:
        write(attempt, report)
    except OSError as error:
        not_whole(error)
        return False
    return True


def read(attempt: Attempt) -> list[Report]:
    """The reports there are."""
    files = sorted(attempt.reports.glob("node-*.json"))
    return [REPORT.validate_json(file.read_bytes()) for file in files]


def merged(
    attempt: Attempt,
    verb: str,
    world_size: int,
    *,
    asked: bool = False,
    killed: bool = False,
    gave_up: bool = False,
    unwritten: Sequence[Report] = (),
) -> Verdict:
    """One verdict from all nodes' reports and all ranks' crash files: the first cause on any node.

    Args:
        attempt: which one.
        verb: what its ranks did.
        world_size: how many ranks there were to be.
        asked: whether the lead was asked to stop, whatever came through to the nodes.
        killed: whether a person had it killed.
        gave_up: whether the lead ended the nodes by itself, so that what they were asked is no cause.
        unwritten: reports that found no room on the disk.
    """
    folder, reports = attempt.folder, [*read(attempt), *unwritten]
    codes = [report.launcher_code for report in reports if report.launcher_code is not None]
    evidence = Evidence(
        verb=verb,
        processes=world_size,
        outcome=protocol.read_outcome(folder) if verb == "train" else None,
        results=results_since(folder, attempt.seconds),
        crashes=tuple(crash for crash in protocol.read_crashes(folder) if crash.seconds >= attempt.seconds),
        deaths=tuple(sorted((d for r in reports for d in r.deaths), key=lambda death: death.seconds)),
        launcher_code=next((code for code in codes if code != 0), 0 if codes else None),
        last_step=last_step(folder / protocol.METRICS),
        asked_to_stop=asked or (not gave_up and any(report.asked for report in reports)),
        killed="user" if killed else None,
        # Where one node could tell its ranks apart by their stacks, it knows more than the others.
        hang=min(
            (report.hang for report in reports if report.hang), key=lambda h: len(h.ranks), default=None
        ),
        places={rank: place for report in reports for rank, place in report.places.items()},
    )
    if killed:
        return decide(evidence)
    # A node that was killed because it hung was lost afterwards.
    causes = [primary_seconds(evidence), *(report.seconds for report in reports if report.hang)]
    cause = min((seconds for seconds in causes if seconds is not None), default=None)
    apart = sorted(
        (r for r in reports if r.said or (r.lost and not evidence.asked_to_stop)),
        key=lambda report: report.seconds,
    )
    if apart and (cause is None or apart[0].seconds < cause):
        return _apart(apart[0], evidence)
    return decide(evidence)


def conclude(attempt: Attempt, verdict: Verdict, logs: Path, *, asked: str | None = None) -> Verdict:
    """Say and keep how an attempt ended.

    Args:
        attempt: which one.
        verdict: merged from all nodes.
        logs: where the ranks' output is.
        asked: the signal that asked the lead to stop; agents hear of it as another.

    Returns:
        The verdict, changed where the attempts together show that there is no hope.
    """
    line = _line(attempt, verdict, asked)
    if line is not None:
        line, verdict = in_view_of_all(attempt.folder, line, verdict)
    else:
        # A start that is not counted among the attempts must not be repeated by itself: it would be without end.
        verdict = replace(verdict, lost=False)
    print(errors.spoken(verdict.sentence), file=sys.stderr, flush=True)
    if verdict.exit_code in (errors.BUG, errors.DO_NOT_REQUEUE):
        print(errors.spoken(f"logs: {logs}"), file=sys.stderr, flush=True)
    try:
        protocol.write_json(attempt.reports / VERDICT, asdict(verdict))
        if line is not None:
            attempts.append(attempt.folder, line)
    except OSError as error:
        not_whole(error)
    return verdict


def _line(attempt: Attempt, verdict: Verdict, asked: str | None) -> attempts.Attempt | None:
    """The attempt among the run's attempts: the first node's account, with the verdict of all."""
    reports = read(attempt)
    first = next((report for report in reports if report.part), None)
    if first is None or first.part is None:
        return None
    # A lead that gives up on its nodes kills them by what they hear as a request, made by nobody.
    heard = first.part.asked if first.killed != "user" else None
    return replace(
        first.part,
        number=attempts.next_number(attempt.folder),
        hosts=tuple(report.host for report in reports),
        asked=asked or heard,
        exit_code=verdict.exit_code,
        rank=verdict.rank,
        sentence=verdict.sentence,
    )


def newest_verdict(folder: Path, since: float) -> Verdict | None:
    """How the last attempt ended, if one did since then."""
    files = [file for file in (folder / FOLDER).glob(f"*/{VERDICT}") if file.stat().st_mtime >= since]
    if not files:
        return None
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return TypeAdapter(Verdict).validate_json(newest.read_bytes())


def _apart(report: Report, evidence: Evidence) -> Verdict:
    """A node that never started its ranks, or whose agent vanished."""
    if report.said:
        return Verdict(report.code, f"Node {report.node} ({report.host}): {report.said}")
    step = evidence.last_step
    when = f" after step {step}" if step is not None else " before the first step"
    if report.orphaned:
        when = next(iter(report.places.values()), when)
        how = "its agent was killed; what it had started was killed after it"
    elif report.unreached:
        how = (
            "its ssh connection ended (code 255): see whether the machine is up and its network reaches here"
        )
    else:
        how = f"its agent ended with code {report.code} and left no word"
    return Verdict(errors.BUG, f"Node {report.node} ({report.host}) was lost{when}: {how}.", lost=True)
