"""The verdict: exit code and sentence from what ranks left, never from the launcher's own code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.protocol import Crash, Outcome
from launch.hang import Hang
from launch.records import last_step
from launch.verdict import (
    Death,
    Evidence,
    Verdict,
    decide,
    reported_deaths,
    results_since,
    secondary,
)

TRAIN = Evidence(verb="train", processes=4, launcher_code=1, last_step=12)


def crash(rank: int, error: str, message: str, seconds: float, code: int = 1) -> Crash:
    return Crash(rank, "node-b", 100 + rank, "backward", 12, error, message, code, seconds)


def test_finished_is_zero_though_the_launcher_says_one() -> None:
    verdict = decide(replace(TRAIN, outcome=Outcome("finished", 40, 3725.0), launcher_code=1))
    assert verdict.exit_code == 0
    assert "after step 40 in 1 h 02 min" in verdict.sentence


def test_preempted_is_seventy_five_and_says_where_it_saved() -> None:
    outcome = Outcome("preempted", 7, 3.0, "runs/a/checkpoints/step-000007")
    verdict = decide(
        replace(TRAIN, outcome=outcome, asked_to_stop=True, deaths=(Death(1, 75, 5.0), Death(0, -15, 6.0)))
    )
    assert verdict.exit_code == 75
    assert "saved at step 7 in runs/a/checkpoints/step-000007" in verdict.sentence
    assert verdict.gist == "saved at step 7", "a rank that has said so need not be repeated"


def test_the_first_cause_is_named_and_echoes_are_counted() -> None:
    crashes = (
        crash(0, "RuntimeError", "[enforce fail] Connection closed by peer [::1]:4000", 10.1),
        crash(3, "OutOfMemoryError", "CUDA out of memory\nmore", 10.5),
        crash(1, "DistBackendError", "NCCL communicator was aborted", 10.9),
    )
    verdict = decide(replace(TRAIN, crashes=crashes, deaths=tuple(Death(rank, 1, 11.0) for rank in range(4))))
    assert verdict.rank == 3 and verdict.exit_code == 1
    assert verdict.sentence == (
        "Rank 3 on node-b died first at step 12, backward: OutOfMemoryError: CUDA out of memory; 3 others followed."
    )


def test_a_killed_rank_is_named_before_the_unfamiliar_echo_of_its_peers() -> None:
    crashes = (crash(0, "RuntimeError", "something gloo never said before", 10.2),)
    deaths = (Death(2, -9, 10.0), Death(0, 1, 10.3))
    verdict = decide(replace(TRAIN, crashes=crashes, deaths=deaths))
    assert verdict.rank == 2 and "SIGKILL" in verdict.sentence and "memory" in verdict.sentence


def test_a_rank_that_its_launcher_ended_is_not_the_first() -> None:
    deaths = (Death(1, -15, 9.0), Death(2, 1, 9.1))
    verdict = decide(replace(TRAIN, deaths=deaths, places={2: " at step 13, save"}))
    assert (
        verdict.rank == 2
        and "Rank 2 died first at step 13, save: it ended with exit code 1" in verdict.sentence
    )
    alone = decide(replace(TRAIN, deaths=deaths[:1]))
    assert alone.rank == 1 and "died first after step 12: it was killed by SIGTERM" in alone.sentence


def test_a_hang_that_was_ended_is_the_verdict_unless_a_rank_told_why() -> None:
    hang = Hang((1,), "Rank 1 on node-b has been silent for 12 s", True, 8.0)
    ended = replace(TRAIN, hang=hang, killed="hang", launcher_code=-9)
    assert decide(ended) == Verdict(1, "Rank 1 on node-b has been silent for 12 s.", 1)
    assert decide(replace(ended, crashes=(crash(0, "ValueError", "bad", 9.0),))).rank == 0


def test_a_rank_that_crashed_before_another_was_killed_is_the_first() -> None:
    crashes = (crash(0, "ValueError", "bad", 9.0),)
    deaths = (Death(0, 1, 9.1), Death(2, -15, 9.5))
    assert decide(replace(TRAIN, crashes=crashes, deaths=deaths)).rank == 0


@pytest.mark.parametrize("code", [2, 3, 93])
def test_a_users_error_keeps_its_sentence_and_code(code: int) -> None:
    verdict = decide(replace(TRAIN, crashes=(crash(1, "WishError", "global batch 7: use 8", 1.0, code),)))
    assert (verdict.exit_code, verdict.sentence) == (code, "global batch 7: use 8")


def test_an_error_that_speaks_of_peers_but_is_a_wish_is_no_echo() -> None:
    assert secondary(crash(0, "RuntimeError", "Broken pipe", 1.0))
    assert not secondary(crash(0, "WishError", "Connection refused by the hub: set HF_ENDPOINT", 1.0, 2))


def test_leaving_early_with_zero_is_a_failure() -> None:
    verdict = decide(replace(TRAIN, deaths=(Death(3, 0, 1.0), Death(0, -9, 30.0)), launcher_code=-9))
    assert (
        verdict.exit_code == 1 and verdict.rank == 3 and "exit code 0 without finishing" in verdict.sentence
    )


def test_all_leaving_with_zero_and_without_a_word_is_a_failure() -> None:
    verdict = decide(replace(TRAIN, launcher_code=0))
    assert verdict.exit_code == 1 and "left no outcome" in verdict.sentence


def test_an_evaluation_is_done_when_its_summary_is_new() -> None:
    evaluation = replace(TRAIN, verb="evaluate", launcher_code=0)
    assert decide(evaluation).exit_code == 1
    assert decide(replace(evaluation, results=True)).exit_code == 0
    assert (
        decide(replace(evaluation, results=True, crashes=(crash(1, "ValueError", "x", 1.0),))).exit_code == 1
    )


def test_asked_to_stop_before_anything_was_done_may_be_requeued() -> None:
    verdict = decide(replace(TRAIN, asked_to_stop=True, deaths=(Death(0, -15, 1.0), Death(1, -15, 1.1))))
    assert verdict.exit_code == 75


def test_killed_on_request_is_never_a_success() -> None:
    assert decide(replace(TRAIN, killed="user", asked_to_stop=True)).exit_code == 1


def test_only_echoes_still_name_someone() -> None:
    verdict = decide(replace(TRAIN, crashes=(crash(2, "RuntimeError", "Connection reset", 3.0),)))
    assert verdict.exit_code == 1 and verdict.rank == 2


def test_reports_of_launchers_are_read_for_ranks_nobody_saw() -> None:
    torchrun = "[0]:\n  time : x\n  host : h\n  rank      : 3 (local_rank: 1)\n  exitcode  : -9 (pid: 4015)\n"
    assert reported_deaths(torchrun, 1.0) == [Death(3, -9, 1.0)]
    single = "subprocess.CalledProcessError: Command '['python', '-m', 'x']' died with <Signals.SIGKILL: 9>."
    assert reported_deaths(single, 1.0) == [Death(0, -9, 1.0)]
    plain = "subprocess.CalledProcessError: Command '['python']' returned non-zero exit status 3."
    assert reported_deaths(plain, 1.0) == [Death(0, 3, 1.0)]


def test_the_last_step_is_read_past_torn_and_other_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) is None
    lines = [json.dumps({"step": step}) for step in range(30)] + [
        json.dumps({"event": "saved"}),
        '{"step": 3',
    ]
    metrics.write_text("\n".join(lines))
    assert last_step(metrics) == 29


def test_an_old_summary_is_no_result(tmp_path: Path) -> None:
    summary = tmp_path / "evaluations" / "basics-test" / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text("{}")
    written = summary.stat().st_mtime
    assert results_since(tmp_path, written - 1)
    assert not results_since(tmp_path, written + 1)
