"""What happens between two hosts: a cut, a slow and lossy line, and a rank, an agent or a whole host that hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from launch import processes
from tests.cluster.machines import Wish, sh
from tests.cluster.training import Training, agent_process, held, losses, rank_process, strategy, temper
from tests.cluster.wire import Wire

pytestmark = pytest.mark.cluster


@contextmanager
def link_down(host: str) -> Iterator[None]:
    space = f"temper-{host}"
    sh("ip", "-n", space, "link", "set", "eth0", "down")
    try:
        yield
    finally:
        sh("ip", "-n", space, "link", "set", "eth0", "up")


def test_a_host_that_loses_its_network_is_named_and_the_run_ends(wish: Wish) -> None:
    run = Training(wish, "cut")
    bound = 3 * run.step_seconds() + 5 + 2  # and what a try to reach the head takes
    with link_down(wish.hosts[1]):
        cut = time.monotonic()
        pattern = f"Rank 1 on {wish.hosts[1]} cannot reach the head {wish.hosts[0]}, port .*: network is unreachable"
        run.end()
    assert re.search(pattern, run.verdict()["sentence"]), run.text
    said = (run.folder / "logs" / "node-1.log").read_text()
    assert re.search(pattern, said), said
    assert run.verdict()["rank"] == 1 and time.monotonic() - cut < bound + 40


def test_over_ssh_a_host_that_falls_silent_is_given_up_in_bounded_time(
    wish: Wish, sshd: dict[str, Any]
) -> None:
    run = Training(wish, "silent", command=None, **sshd)
    with link_down(wish.hosts[1]):
        cut = time.monotonic()
        run.end()
        took = time.monotonic() - cut
    sentence = run.verdict()["sentence"]
    assert re.match(
        rf"Node 1 \({wish.hosts[1]}\) was lost after step \d+: its ssh connection ended", sentence
    ), run.text
    assert took < 45, took


@pytest.fixture()
def sixes(hosts: list[str]) -> Iterator[list[str]]:
    """Addresses of IPv6 of the two hosts, whose namespaces are named by them as well."""
    found = [f"fd00:78::{number}" for number in (1, 2)]
    for host, address in zip(hosts, found, strict=True):
        sh("ip", "-n", f"temper-{host}", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        Path(f"/run/netns/temper-{address}").symlink_to(f"/run/netns/temper-{host}")
    try:
        yield found
    finally:
        for host, address in zip(hosts, found, strict=True):
            Path(f"/run/netns/temper-{address}").unlink()
            sh("ip", "-n", f"temper-{host}", "addr", "del", f"{address}/64", "dev", "eth0")


def test_hosts_that_are_reached_by_ipv6(wish: Wish, sixes: list[str]) -> None:
    place = Wish(wish.folder, sixes).cluster("hosts")
    done = temper("train", str(wish.run("six", strategy="ddp")), "--on", str(place))
    assert done.returncode == 0, done.stderr
    assert strategy(wish.folder / "six") == "ddp over 2 ranks (gloo)"


@pytest.mark.parametrize(("seconds", "loss"), [(0.05, 0.0), (0.0, 0.05)], ids=["slow", "lossy"])
def test_a_poor_wire_changes_no_loss(wish: Wish, seconds: float, loss: float) -> None:
    place, octet = wish.cluster("hosts"), wish.hosts[1].split(".")[2]
    wire = Wire(wish.hosts, f"tbr{octet}", f"tve{octet}n1", seconds=seconds, loss=loss)
    try:
        began = time.monotonic()
        probe = ["nsenter", f"--net=/run/netns/temper-{wish.hosts[0]}", "python3", "-c"]
        probe += [f"import socket; socket.create_connection(('{wish.hosts[1]}', 9))"]
        subprocess.run(probe, capture_output=True)
        assert time.monotonic() - began > 2 * seconds
        poor = temper("train", str(wish.run("poor")), "--on", str(place))
        assert wire.carried > 500 and (wire.lost > 10) == (loss > 0), (wire.carried, wire.lost)
    finally:
        wire.close()
    assert poor.returncode == 0, poor.stderr
    good = temper("train", str(wish.run("good", processes=2)))
    assert good.returncode == 0, good.stderr
    folder = wish.folder / "poor"
    assert strategy(folder) == "ZeRO-3 over 2 ranks (gloo), 50% of weights here"
    assert len(losses(folder)) == 4 and losses(folder) == losses(wish.folder / "good")
    assert "has been silent" not in poor.stderr and "cannot reach" not in poor.stderr


def test_a_rank_stopped_on_the_second_host_is_named_on_the_first_in_time(wish: Wish) -> None:
    run = Training(wish, "stopped")
    bound = 3 * run.step_seconds() + 5 + 1  # and what the word takes from launcher to lead on a busy machine
    began = time.monotonic()
    os.kill(rank_process(run.folder, 1), signal.SIGSTOP)
    took = run.told(rf"Rank 1 on {wish.hosts[1]} has been silent for .*stopped \(state T\)", began)
    assert took < bound, f"{took:.1f} s, and the bound is {bound:.1f} s: {run.text}"
    run.end()
    assert run.verdict()["rank"] == 1 and "stopped (state T)" in run.verdict()["sentence"], run.text


def test_a_rank_that_is_behind_on_the_second_host_is_named_on_the_first_in_time(wish: Wish) -> None:
    run = Training(wish, "behind", "--set", "parallel.hang_seconds=8")
    bound = 3 * run.step_seconds() + 5
    began = time.monotonic()
    with held(rank_process(run.folder, 1)):
        took = run.told(rf"Rank 1 on {wish.hosts[1]} has been silent for .*while 1 other waits for it", began)
        assert took < bound, f"{took:.1f} s, and the bound is {bound:.1f} s: {run.text}"
        run.end()
    assert run.verdict()["rank"] == 1 and "held by a debugger (state t)" in run.verdict()["sentence"], (
        run.text
    )
    assert (run.folder / "logs" / "stacks-rank-0.txt").is_file()


def test_a_killed_agent_is_named_and_nothing_of_it_is_left(wish: Wish, sshd: dict[str, Any]) -> None:
    run = Training(wish, "beheaded", command=None, **sshd)
    os.kill(agent_process(run.folder), signal.SIGKILL)
    run.end()
    sentence = run.verdict()["sentence"]
    assert re.match(
        rf"Node 1 \({wish.hosts[1]}\) was lost at step \d+, \w+: its agent was killed;", sentence
    ), run.text


def test_a_host_that_freezes_is_named_by_the_other(wish: Wish) -> None:
    run = Training(wish, "frozen", "--set", "parallel.hang_seconds=8")
    bound = 3 * run.step_seconds() + 5 + 2
    agent = agent_process(run.folder)
    tree = [agent]
    for pid in tree:
        tree += processes.children(pid)
    began = time.monotonic()
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    try:
        # The last that was heard of it may already show its rank behind.
        took = run.told(f"(Nothing has been heard of|Rank 1 on) {wish.hosts[1]} (for|has been)", began)
        assert took < bound, f"{took:.1f} s, and the bound is {bound:.1f} s: {run.text}"
        assert run.lead.wait(timeout=120) == 1, run.text
    finally:
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    run.end()
    assert "Nothing has been heard of" in run.verdict()["sentence"], run.text
