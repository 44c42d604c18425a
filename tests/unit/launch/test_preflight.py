"""Every finding from made-up facts: it names its node, the value and a remedy, and is absent where all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launch.inspection import Card, Facts, Met, Room, Wanted
from launch.preflight import GIB, Finding, Survey, findings, may_meet

NAMES = ("alpha", "beta", "gamma")
VERSIONS = {"python": "3.12.1", "torch": "2.13.0", "deepspeed": "0.19.8"}
CARD = Card("NVIDIA H100 80GB HBM3", 81559, "570.1")
WANTED = Wanted(
    folder="/shared/runs/x", directory="/shared", head="alpha", port=20001, nodes=3, ranks=8, device="cuda",
    gpus=8, gpu_memory_gib=80, disk_bytes=10 * GIB, inodes=100, level="user",
)  # fmt: skip
ROOM = Room("", 100 * GIB, 100_000)


def node(number: int, **changes: Any) -> Facts:
    facts = Facts(
        node=number, host=NAMES[number], address=f"10.0.0.{number + 1}", interface="eth0", head="10.0.0.1",
        versions=VERSIONS, cards=(CARD,) * 8, shared_memory=16 * GIB, open_files=65536, parent="/shared/runs",
        level="full",
    )  # fmt: skip
    return replace(facts, **changes)


def survey(**changes: Any) -> Survey:
    well = Survey(
        names=NAMES,
        facts={number: node(number) for number in range(3)},
        folder="/shared/runs",
        rooms={number: ROOM for number in range(3)},
        seen={number: (0, 1, 2) for number in range(3)},
        skew={0: (0.1, 0.001), 1: (0.12, 0.001), 2: (0.0, 0.02)},
        met={number: Met("nccl", 1.0, 4e10) for number in range(3)},
    )
    return replace(well, **changes)


def with_node(number: int, **changes: Any) -> Survey:
    facts = {one: node(one) for one in range(3)}
    return survey(facts={**facts, number: node(number, **changes)})


def told(found: Survey, wanted: Wanted = WANTED) -> Finding:
    (one,) = findings(wanted, found)
    return one


def test_nothing_is_found_where_all_is_well() -> None:
    assert findings(WANTED, survey()) == ()


@pytest.mark.parametrize(
    ("changes", "value", "remedy"),
    [
        ({"versions": {**VERSIONS, "torch": "2.12.1"}}, "torch is 2.12.1, and 2.13.0 on node 0 (alpha)", "==2.13.0"),
        ({"versions": {**VERSIONS, "torch": ""}}, "torch is not installed, and 2.13.0", "torch==2.13.0"),
        ({"versions": {**VERSIONS, "python": "3.11.9"}}, "python is 3.11.9, and 3.12.1", "python==3.12.1"),
        ({"directory": False}, "the working folder /shared is not there", "mount it"),
        ({"cards": (CARD,) * 7}, "7 GPUs, and the cluster file says 8", "nvidia-smi -L"),
        ({"cards": (replace(CARD, memory_mib=40960),) * 8}, "40.0 GiB, and the plan counts on 80", "gpu_memory_gib"),
        ({"cards": (), "smi": "nvidia-smi: No such file"}, "nvidia-smi: No such file", "NVIDIA driver"),
        ({"shared_memory": 60 * 2**20}, "/dev/shm has 60 MiB free, and 1.0 GiB", "--shm-size"),
        ({"open_files": 256}, "may open 256 files, and needs 1024", "nofile"),
        ({"level": "process"}, "isolated at level process, and the run wants user", "temper sandbox probe"),
        ({"level": "none"}, "isolated at level none", "temper sandbox probe"),
        ({"problems": {"some/model": "the hub is silent"}}, "some/model cannot be read: the hub is silent", "copy"),
    ],
)  # fmt: skip
def test_what_one_node_lacks_is_told_of_it_alone(changes: dict[str, Any], value: str, remedy: str) -> None:
    one = told(with_node(2, **changes))
    assert one.where == "node 2 (gamma)"
    assert value in one.what and remedy in one.remedy, str(one)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"head": ""}, "the head's address alpha is not known"),
        ({"address": ""}, "no interface leads to the head 10.0.0.1"),
        ({"interface": ""}, "no interface leads to the head 10.0.0.1"),
        ({"head": "127.0.0.1"}, "the head alpha is 127.0.0.1, which only it can reach"),
    ],
)
def test_a_node_that_has_no_way_to_the_head(changes: dict[str, Any], value: str) -> None:
    assert value in told(with_node(1, **changes)).what


def test_a_taken_port_is_told_and_no_rehearsal_is_held() -> None:
    taken = with_node(0, port="port 20001 of 10.0.0.1 is taken")
    assert may_meet(survey()) and not may_meet(taken)
    one = told(replace(taken, met={}))
    assert (one.where, one.what) == ("node 0 (alpha)", "port 20001 of 10.0.0.1 is taken")
    assert "ss -ltnp" in one.remedy


def test_a_node_without_its_gpus_holds_no_rehearsal() -> None:
    assert not may_meet(with_node(1, cards=(), smi="nvidia-smi: No such file"))


def test_a_package_that_is_nowhere_is_told_once() -> None:
    bare = {
        number: node(number, versions={**VERSIONS, "deepspeed": "", "temper-llm": ""}) for number in range(3)
    }
    assert str(told(survey(facts=bare))).startswith("most nodes: deepspeed is not installed")


def test_a_node_that_is_silent_is_told_with_its_last_words() -> None:
    facts = {0: node(0), 2: node(2)}
    both = {0: (0, 2), 2: (0, 2)}
    quiet = survey(
        facts=facts, silent={1: "Permission denied (publickey)."}, rooms={0: ROOM, 2: ROOM}, seen=both, met={}
    )
    one = told(quiet)
    assert one.where == "node 1 (beta)" and "Permission denied (publickey)." in one.what
    assert not may_meet(quiet)


@pytest.mark.parametrize(
    ("rooms", "value"),
    [
        (Room("Read-only file system"), "/shared/runs cannot be written (read-only file system)"),
        (Room("No space left on device"), "cannot be written (no space left on device)"),
        (Room("", 9 * GIB, 100_000), "has 9.0 GiB free, and the run's checkpoints need 10.0 GiB"),
        (Room("", 100 * GIB, 99), "has 99 inodes free, and the run needs 100"),
    ],
)
def test_a_disk_that_does_not_do_is_told_of_each_node(rooms: Room, value: str) -> None:
    readers = {0: (0, 2), 1: (0, 2), 2: (0, 2)} if rooms.problem else survey().seen
    one = told(survey(rooms={0: ROOM, 1: rooms, 2: ROOM}, seen=readers))
    assert one.where == "node 1 (beta)" and value in one.what


def test_a_folder_that_is_not_shared_shows_no_file_of_the_others() -> None:
    found = findings(WANTED, survey(seen={0: (0, 2), 1: (1,), 2: (0, 2)}))
    assert [(one.where, one.what) for one in found] == [
        ("node 0 (alpha)", "/shared/runs does not show what node 1 (beta) wrote there"),
        ("node 1 (beta)", "/shared/runs does not show what node 0 (alpha) and node 2 (gamma) wrote there"),
        ("node 2 (gamma)", "/shared/runs does not show what node 1 (beta) wrote there"),
    ]


def test_a_missing_shared_folder_and_one_that_does_not_answer_are_told_apart() -> None:
    rooms, seen = {0: ROOM, 1: ROOM}, {0: (0, 1), 1: (0, 1)}
    missing = replace(with_node(2, parent="/"), rooms=rooms, seen=seen)
    assert "there is no folder /shared/runs, and other nodes have it" in told(missing).what
    assert "/shared/runs did not answer in time" in told(survey(rooms=rooms, seen=seen)).what


@pytest.mark.parametrize(
    ("clock", "value"),
    [
        ((2.6, 0.001), "its clock is 2.5 s ahead of node 0 (alpha)'s"),
        ((-2.4, 0.001), "its clock is 2.5 s behind node 0 (alpha)'s"),
        ((0.9, 0.4), None),
    ],
)
def test_clocks_that_differ_by_more_than_the_question_took(
    clock: tuple[float, float], value: str | None
) -> None:
    found = findings(WANTED, survey(skew={0: (0.1, 0.001), 1: clock, 2: (0.1, 0.001)}))
    assert [(one.where, one.what) for one in found] == ([("node 1 (beta)", value)] if value else [])


def test_a_rehearsal_that_fails_is_told_with_its_cause() -> None:
    met = {0: Met("nccl", 1.0), 1: Met("nccl", problem="no end within the limit")}
    found = findings(WANTED, survey(met=met))
    assert [(one.where, one.what) for one in found] == [
        ("node 1 (beta)", "the rehearsal over nccl failed: no end within the limit"),
        ("node 2 (gamma)", "the rehearsal was not heard of again"),
    ]


def test_all_is_told_at_once() -> None:
    worse = with_node(
        1, open_files=100, directory=False, problems={"m": "gone"}, versions={**VERSIONS, "torch": "1"}
    )
    assert len(findings(WANTED, replace(worse, skew={0: (0, 0), 1: (9.0, 0)}))) == 5


def test_a_run_that_neither_judges_nor_has_gpus_is_not_measured_by_them() -> None:
    plain = replace(WANTED, level="", device="cpu", gpus=0)
    bare = {number: node(number, cards=(), level="", shared_memory=100 * 2**20) for number in range(3)}
    assert findings(plain, survey(facts=bare)) == ()
