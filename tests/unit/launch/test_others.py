"""What a launcher knows of the other machines' ranks, and who is blamed across machines."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import heartbeat, protocol
from engine.heartbeat import PHASES, Beat, Where
from launch.hang import Limits, Sight, cut_off, unheard
from launch.others import Others
from launch.patrol import Patrol

NOTHING = dict.fromkeys(PHASES, 0.0)
LIMITS = Limits(in_step=300, elsewhere=1800)


def row(rank: int, count: int = 40, silent: float = 5.0, state: str = "S", **more: Any) -> dict[str, Any]:
    return {
        "rank": rank, "step": 7, "phase": "backward", "silent": silent, "state": state,
        "stopped": silent if state == "T" else 0.0, "count": count, "usual": 0.2, "longest": 0.1, **more,
    }  # fmt: skip


def leave(folder: Path, host: str, *rows: dict[str, Any], attempt: str = "7-0", time: float = 1.0) -> None:
    (folder / protocol.HEARTBEATS).mkdir(exist_ok=True)
    said = {"host": host, "attempt": attempt, "time": time, "ranks": rows}
    (folder / protocol.HEARTBEATS / f"{host}.json").write_text(json.dumps(said))


def test_ranks_of_other_machines_grow_silent_between_two_words(tmp_path: Path) -> None:
    others = Others(tmp_path, "7-0", 3, None)
    leave(tmp_path, "b", row(1, 38), row(2))
    others.look(100.0, silent=4.0)
    assert others.sights == [] and others.unseen == 3, "one machine has said nothing yet"
    leave(tmp_path, "c", row(3, state="T"))
    others.look(101.0, silent=5.0)
    assert [(s.rank, s.host, s.silent, s.stopped) for s in others.sights] == [
        (1, "b", 6.0, 0.0), (2, "b", 6.0, 0.0), (3, "c", 5.0, 5.0),
    ]  # fmt: skip
    assert others.sights[0].beat.count == 38 and others.unseen == 0 and others.unheard is None
    leave(tmp_path, "b", row(1), row(2), time=2.0)
    others.look(107.0, silent=11.0)
    assert others.unheard == ("c", (3,), 6.0) and others.unseen == 3
    others.look(107.5, silent=0.1)
    assert others.unheard is None, "while this machine's ranks go on nobody is missed"


def test_what_another_attempt_left_or_is_torn_is_not_listened_to(tmp_path: Path) -> None:
    others = Others(tmp_path, "7-1", 1, None)
    leave(tmp_path, "b", row(1), attempt="7-0")
    others.look(1.0, silent=4.0)
    assert others.unseen == 1
    (tmp_path / protocol.HEARTBEATS / "b.json").write_text('{"host": "b", "att')
    others.look(2.0, silent=5.0)
    assert others.unseen == 1


def test_a_launcher_that_has_ended_is_not_missed(tmp_path: Path) -> None:
    others = Others(tmp_path, "7-0", 1, None)
    leave(tmp_path, "b", row(1))
    others.look(1.0, silent=4.0)
    (tmp_path / protocol.HEARTBEATS / "b.json").unlink()
    others.look(60.0, silent=64.0)
    assert others.unheard is None


def patrol_of(folder: Path, monkeypatch: pytest.MonkeyPatch, others: Others) -> tuple[Patrol, Sight]:
    patrol = Patrol(folder, LIMITS, lockstep=True, expected=1, others=others)
    beat = Beat(40, 40, "backward", 7, 1, 0.0, (0.2,), NOTHING, NOTHING)
    here = Sight(0, "a", beat, 5.0, "S")
    monkeypatch.setattr(patrol, "sights", lambda pids: [replace(here, silent=5.0 + patrol._clock)])
    return patrol, here


def looks(patrol: Patrol, count: int) -> tuple[list[str], list[Any]]:
    said: list[str] = []
    found = []
    for _ in range(count):
        patrol._looked -= 1.0
        found.append(patrol.look({}, said.append))
    return said, found


def test_a_rank_behind_on_another_machine_is_named_here_and_ended_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patrol, _ = patrol_of(tmp_path, monkeypatch, Others(tmp_path, "7-0", 1, None))
    leave(tmp_path, "b", row(1, 38))
    said, found = looks(patrol, 2)
    assert found == [None, None] and len(said) == 1
    assert said[0].startswith("Rank 1 on b has been silent for") and "while 1 other waits for it" in said[0]
    leave(tmp_path, "b", row(1, 38, 301.0, "T"), time=2.0)
    _, found = looks(patrol, 3)
    assert found == [None] * 3, "its own launcher has the stacks, and ends it"
    for beat in range(3, 30):
        leave(tmp_path, "b", row(1, 38, 301.0 + beat, "T"), time=float(beat))
        _, found = looks(patrol, 1)
        if found[0] is not None:
            break
    assert found[0] is not None and found[0].ranks == (1,), "a launcher that does not is not waited for"
    patrol.close()


def test_of_ranks_that_are_all_level_none_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patrol, _ = patrol_of(tmp_path, monkeypatch, Others(tmp_path, "7-0", 1, None))
    leave(tmp_path, "b", row(1, 40))
    assert looks(patrol, 3) == ([], [None] * 3)
    patrol.close()


def test_a_head_that_refuses_is_there_and_one_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listening = Others(tmp_path, "7-0", 1, ("127.0.0.1", port))
        assert [listening.cut(now / 10) for now in range(20)] == [None] * 20
    refusing = Others(tmp_path, "7-0", 1, ("127.0.0.1", port))
    assert [refusing.cut(now / 10) for now in range(20)] == [None] * 20
    # No route leads to the class of addresses that is reserved.
    gone = Others(tmp_path, "7-0", 1, ("240.0.0.1", port))
    told = [gone.cut(float(now)) for now in range(12)]
    assert told[0] is None and told[-1] is not None
    head, seconds, why = told[-1]
    assert head == f"240.0.0.1, port {port}" and 5 < seconds < 12 and why in (
        "network is unreachable", "no route to host", "connection timed out", "invalid argument",
    )  # fmt: skip


def test_a_cut_is_borne_for_a_while_and_a_long_phase_without_end() -> None:
    beat = Beat(40, 40, "forward", 7, 1, 0.0, (0.2,), NOTHING, NOTHING)
    sights = [Sight(2, "b", beat, 9.0, "S"), Sight(3, "b", beat, 9.0, "S")]
    hang = cut_off(sights, LIMITS, "10.0.0.1, port 20000", 8.0, "no route to host")
    assert not hang.over and hang.sentence == (
        "Ranks 2 and 3 on b cannot reach the head 10.0.0.1, port 20000, for 8 s now at step 7, forward:"
        " no route to host"
    )
    assert cut_off(sights, LIMITS, "h", 21.0, "").over
    assert not cut_off(sights, replace(LIMITS, in_step=0), "h", 1e6, "").over
    judging = [replace(sights[0], beat=replace(beat, phase="evaluate"))]
    assert not cut_off(judging, LIMITS, "h", 1e6, "").over
    lost = unheard(sights, LIMITS, "c", (4, 5), 9.0)
    assert lost.sentence == (
        "Nothing has been heard of c for 9 s, neither of its ranks 4 and 5 nor of its launcher, "
        "while 2 ranks wait at step 7, forward"
    )
    assert not lost.over and unheard(sights, LIMITS, "c", (4, 5), 301.0).over


def test_what_one_launcher_leaves_another_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(protocol.HOST_VARIABLE, "b")
    patrol = Patrol(tmp_path, LIMITS, lockstep=True, expected=2, others=Others(tmp_path, "7-0", 1, None))
    where = Where(heartbeat.page(patrol.local, 1))
    where.at("forward", 3)
    patrol._mirrored = -10.0
    looks_at = {1: os.getpid()}
    patrol._looked -= 1.0
    assert patrol.look(looks_at, lambda text: None) is None
    monkeypatch.setenv(protocol.HOST_VARIABLE, "a")
    others = Others(tmp_path, "7-0", 1, None)
    others.look(1.0, silent=4.0)
    (sight,) = others.sights
    assert (sight.rank, sight.host, sight.beat.step, sight.beat.phase) == (1, "b", 3, "forward")
    assert sight.beat.count == heartbeat.read(heartbeat.page(patrol.local, 1)).count  # type: ignore[union-attr]
    patrol.close()
