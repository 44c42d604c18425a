"""One verdict from several nodes: the first cause on any of them, not the echo on the node that asks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine import protocol
from engine.protocol import Crash, Outcome
from launch import attempts
from launch.hang import Hang
from launch.reports import Attempt, Peers, Report, conclude, merged, newest_verdict, write
from launch.verdict import Death, Evidence, Verdict


@pytest.fixture()
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path, "7-0", 100.0)


def crash(attempt: Attempt, rank: int, seconds: float, message: str, host: str = "a") -> None:
    protocol.write_crash(
        attempt.folder, Crash(rank, host, 1, "forward", 5, "RuntimeError", message, 1, seconds)
    )


def report(attempt: Attempt, node: int, code: int, *deaths: Death, **more: object) -> None:
    write(attempt, Report(node, "ab"[node], code, 150.0, deaths, launcher_code=code, **more))  # type: ignore[arg-type]


def test_the_killed_rank_is_named_and_not_the_peers_that_noticed(attempt: Attempt) -> None:
    crash(attempt, 0, 121.0, "Connection closed by peer [10.0.0.2]:1")
    report(attempt, 0, 1, Death(0, 1, 121.5, "a"))
    report(attempt, 1, 1, Death(1, -signal.SIGKILL, 120.9, "b"))
    verdict = merged(attempt, "train", 2)
    assert (verdict.exit_code, verdict.rank) == (1, 1)
    assert verdict.sentence.startswith("Rank 1 on b died first") and verdict.sentence.endswith(
        "1 other followed."
    )


def test_a_crash_on_the_other_node_is_the_first_cause(attempt: Attempt) -> None:
    crash(attempt, 3, 120.0, "loss is not a number", "b")
    crash(attempt, 0, 120.5, "Connection reset by peer")
    crash(attempt, 1, 90.0, "of an earlier attempt")
    report(attempt, 0, 1, Death(0, 1, 121.0, "a"))
    report(attempt, 1, 1, Death(3, 1, 120.1, "b"))
    assert "Rank 3 on b died first at step 5, forward" in merged(attempt, "train", 4).sentence


def test_an_agent_that_vanished_is_the_cause_of_the_echoes(attempt: Attempt) -> None:
    crash(attempt, 0, 121.0, "Connection closed by peer")
    report(attempt, 0, 1, Death(0, 1, 121.5, "a"))
    report(attempt, 1, 137, lost=True)
    verdict = merged(attempt, "train", 2)
    assert (verdict.exit_code, verdict.sentence[:26]) == (1, "Node 1 (b) was lost before")


def test_nodes_ended_as_another_was_lost_were_not_stopped_as_asked(attempt: Attempt) -> None:
    # The lead closes the pipe of the node that is left, which its agent hears as two requests.
    report(attempt, 0, 1, Death(0, -signal.SIGTERM, 160.0, "a"), asked=True, killed="user")
    report(attempt, 1, 137, lost=True)
    verdict = merged(attempt, "train", 2, gave_up=True)
    assert (verdict.exit_code, verdict.sentence[:26]) == (1, "Node 1 (b) was lost before")


def test_a_node_that_refused_gives_its_reason_and_code(attempt: Attempt) -> None:
    write(attempt, Report(0, "a", 3, 110.0, said="port 20000 is taken: end it"))
    report(attempt, 1, 1, Death(1, 1, 130.0, "b"))
    assert merged(attempt, "train", 2) == Verdict(3, "Node 0 (a): port 20000 is taken: end it")


def test_stopped_as_asked_on_every_node_is_75(attempt: Attempt) -> None:
    protocol.write_outcome(attempt.folder, Outcome("preempted", 9, 1.0))
    for node in (0, 1):
        report(attempt, node, 75, Death(node, 75, 140.0), asked=True)
    verdict = merged(attempt, "train", 2)
    assert verdict.exit_code == 75 and "saved at step 9" in verdict.sentence


def test_an_evaluation_that_one_node_did_not_finish_is_no_success(attempt: Attempt) -> None:
    summary = attempt.folder / "evaluations" / "x" / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    report(attempt, 0, 0, Death(0, 0, 140.0))
    report(attempt, 1, 0, Death(1, 0, 140.0))
    assert merged(attempt, "evaluate", 2).exit_code == 0
    report(attempt, 1, 1, Death(1, -signal.SIGSEGV, 130.0))
    assert merged(attempt, "evaluate", 2).exit_code == 1


@pytest.mark.parametrize(("code", "failed"), [(0, False), (75, False), (1, True), (3, True)])
def test_a_node_hears_of_bad_ends_only_and_not_of_its_own(attempt: Attempt, code: int, failed: bool) -> None:
    report(attempt, 1, code)
    assert Peers(attempt, 0, "a").failed() is failed
    assert Peers(attempt, 1, "b").failed() is False


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (Evidence("train", 2, launcher_code=0), 0),
        (Evidence("train", 2, launcher_code=1, deaths=(Death(0, 75, 1.0), Death(1, 75, 1.0))), 75),
        (Evidence("train", 2, launcher_code=1, deaths=(Death(0, 75, 1.0), Death(1, 1, 1.0))), 1),
        (Evidence("train", 2, launcher_code=-9, killed="deadline", deaths=(Death(0, 0, 1.0),)), 1),
    ],
)
def test_a_node_answers_for_its_own_ranks(attempt: Attempt, evidence: Evidence, code: int) -> None:
    # The other nodes' part may not be over: the verdict of all is not this node's.
    assert Peers(attempt, 1, "b").tell(evidence, Verdict(1, "")).exit_code == code


def test_what_was_concluded_is_found_again(attempt: Attempt) -> None:
    conclude(attempt, Verdict(1, "It ended.", 3), attempt.folder)
    assert newest_verdict(attempt.folder, 0.0) == Verdict(1, "It ended.", 3)
    assert newest_verdict(attempt.folder, protocol.now() + 60) is None


@pytest.mark.parametrize(("asked", "code"), [("SIGUSR1", 93), ("SIGINT", 75)])
def test_a_job_that_is_queued_three_times_without_progress_is_not_queued_again(
    attempt: Attempt, asked: str, code: int
) -> None:
    part = attempts.Attempt(0, "train", ("a",), 2, 1.0, 2.0, 5, 5, 5, 5, "SIGTERM", 75, None, "a node's own")
    report(attempt, 0, 75, asked=True, part=part)
    verdict = Verdict(75, "Stopped as asked.")
    ended = [conclude(attempt, verdict, attempt.folder, asked=asked) for _ in range(3)]
    assert [one.exit_code for one in ended] == [75, 75, code]
    assert newest_verdict(attempt.folder, 0.0) == ended[-1]
    assert [line.exit_code for line in attempts.read(attempt.folder)] == [75, 75, code]
    if code == 93:
        assert "made no progress (the newest checkpoint is still step 5)" in ended[-1].sentence


def test_the_verdict_is_said_though_it_cannot_be_kept(
    attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    (attempt.folder / "nodes").write_text("a file where the folder would be")
    conclude(attempt, Verdict(1, "It ended."), attempt.folder)
    first, _, last = capsys.readouterr().err.splitlines()
    assert first == "temper: It ended." and "account of this attempt is not whole" in last


def test_a_hang_on_one_node_is_the_verdict_of_all_and_the_attempt_is_written_down_once(
    attempt: Attempt,
) -> None:
    part = attempts.Attempt(
        0, "train", ("a",), 2, 100.0, 150.0, 1, 7, None, 6, None, 1, None, "a node's own", {"forward": 3.0}
    )
    hang = Hang((1,), "Rank 1 on b has been silent for 12 s", True, 8.0)
    report(attempt, 0, 1, Death(0, -9, 121.0, "a"), part=part, places={0: " at step 7, backward"})
    report(attempt, 1, 1, killed="hang", hang=hang)
    verdict = merged(attempt, "train", 2)
    assert (verdict.exit_code, verdict.rank, verdict.sentence) == (1, 1, f"{hang.sentence}.")
    conclude(attempt, verdict, attempt.folder)
    (line,) = attempts.read(attempt.folder)
    assert (line.number, line.hosts, line.rank, line.sentence) == (1, ("a", "b"), 1, verdict.sentence)
    assert (line.first_step, line.last_step, line.saved, line.seconds) == (1, 7, 6, {"forward": 3.0})
