"""Two hosts of one rank each: the same losses as one host of two, an evaluation, and blame across hosts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from launch import processes
from tests.cluster.machines import ROOT, TEMPER, Wish, until
from tests.cluster.training import alive, losses, rank_process, strategy, temper

pytestmark = pytest.mark.cluster
TOKEN = "token-0123456789"


def test_two_hosts_learn_what_one_learns_and_are_judged(wish: Wish) -> None:
    place = wish.cluster("hosts")
    apart = temper("train", str(wish.run("apart")), "--on", str(place))
    assert apart.returncode == 0, apart.stderr
    together = temper("train", str(wish.run("together", processes=2)))
    assert together.returncode == 0, together.stderr
    folders = wish.folder / "apart", wish.folder / "together"
    assert [strategy(folder) for folder in folders] == ["ZeRO-3 over 2 ranks (gloo), 50% of weights here"] * 2
    assert len(losses(folders[0])) >= 2
    assert losses(folders[0]) == losses(folders[1])

    judged = temper("evaluate", str(wish.run("apart")), "--on", str(place))
    assert judged.returncode == 0, judged.stderr
    (summary,) = folders[0].glob("evaluations/*/summary.json")
    assert summary.is_file()
    # Both hosts' ranks answered tasks.
    assert len(list(summary.parent.glob("generations-*.jsonl"))) == 2


def test_the_same_over_real_ssh(wish: Wish, sshd: dict[str, Any]) -> None:
    place = wish.cluster("hosts", command=None, **sshd)
    done = temper("train", str(wish.run("by-ssh")), "--on", str(place))
    assert done.returncode == 0, done.stderr
    folder = wish.folder / "by-ssh"
    assert strategy(folder) == "ZeRO-3 over 2 ranks (gloo), 50% of weights here"
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob("nodes/*/node-*.json"))]
    assert [(report["host"], report["code"]) for report in reports] == [(host, 0) for host in wish.hosts]
    assert alive(folder) == []


def started(wish: Wish, name: str) -> tuple[subprocess.Popen[str], Path]:
    place = wish.cluster("hosts", environment=["SOME_TOKEN"])
    words = ["train", str(wish.run(name, strategy="ddp")), "--on", str(place)]
    lead = subprocess.Popen(
        [*TEMPER, *words, "--set", "train.steps=100000"], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SOME_TOKEN": TOKEN},
    )  # fmt: skip
    metrics = wish.folder / name / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 3, "steps", None, 500)
    return lead, wish.folder / name


def test_a_killed_rank_is_named_with_its_host(wish: Wish) -> None:
    lead, folder = started(wish, "killed")
    doomed = rank_process(folder, 1)
    assert processes.environment(doomed)["SOME_TOKEN"] == TOKEN
    assert not [row for row in processes.table() if TOKEN in " ".join(processes.words(row.pid))]
    os.kill(doomed, signal.SIGKILL)
    _, said = lead.communicate(timeout=120)
    assert lead.returncode == 1
    assert f"Rank 1 on {wish.hosts[1]} died first at step" in said and "killed by SIGKILL" in said, said
    assert alive(folder) == []
    kept = [file.name for file in folder.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert kept == ["environment.json"] and TOKEN not in said


def test_an_interrupted_run_is_saved_on_all_hosts(wish: Wish) -> None:
    lead, folder = started(wish, "interrupted")
    assert temper("status", str(folder)).stdout.startswith(f"running: process {lead.pid} on ")
    assert "strategy in force" in temper("logs", str(folder)).stdout
    lead.send_signal(signal.SIGINT)
    _, said = lead.communicate(timeout=120)
    assert lead.returncode == 75, said
    assert "Stopped as asked, saved at step" in said and alive(folder) == []
    assert temper("status", str(folder)).stdout.startswith("ended")
    assert temper("cancel", str(folder)).stdout == "it has ended already\n"


def test_a_submitted_run_goes_on_in_the_background_until_cancelled(wish: Wish) -> None:
    folder, place = wish.folder / "behind", wish.cluster("hosts")
    run = str(wish.run("behind", strategy="ddp"))
    taken = temper("submit", run, "--on", str(place), "--set", "train.steps=100000", seconds=30)
    assert taken.returncode == 0, taken.stderr
    metrics = folder / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 3, "steps", None, 500)
    assert temper("status", str(folder)).stdout.startswith("running: process")
    # While it runs torchrun has other ranks' output in folders of its own.
    assert "strategy in force" in temper("logs", str(folder)).stdout
    assert temper("logs", str(folder), "--rank", "1").returncode == 0
    assert temper("cancel", str(folder)).stdout == "it stops at the next step border and saves\n"
    until(lambda: temper("status", str(folder)).stdout.startswith("ended"), "the end", None, 120)
    assert "Stopped as asked, saved at step" in temper("status", str(folder)).stdout
    assert alive(folder) == []


def test_a_lead_that_is_killed_takes_all_hosts_with_it(wish: Wish) -> None:
    lead, folder = started(wish, "beheaded")
    lead.kill()
    lead.wait()
    deadline = time.monotonic() + 10
    while alive(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(folder) == []


def test_a_host_that_is_not_there_is_named(wish: Wish) -> None:
    place = wish.cluster("hosts", command=["nsenter", "--net=/run/netns/temper-none-{host}"])
    told = temper("train", str(wish.run("absent")), "--on", str(place))
    assert told.returncode == 3 and f"node 0 ({wish.hosts[0]}): it did not answer" in told.stderr
    done = temper("train", str(wish.run("absent")), "--on", str(place), "--unchecked")
    assert done.returncode == 1, done.stderr
    assert "was lost before the first step" in done.stderr and wish.hosts[0] in done.stderr


def test_a_taken_port_is_told_by_the_head(wish: Wish) -> None:
    place, run = wish.cluster("hosts"), wish.run("taken")
    dry = temper("train", str(run), "--on", str(place), "--dry-run").stdout
    port = re.search(r'"port": (\d+)', dry)[1]  # type: ignore[index]
    listen = f"import socket,time; s=socket.create_server(('{wish.hosts[0]}', {port})); time.sleep(300)"
    space = f"--net=/run/netns/temper-{wish.hosts[0]}"
    with subprocess.Popen(["nsenter", space, "python3", "-c", listen]) as holder:
        try:
            time.sleep(2)
            done = temper("train", str(run), "--on", str(place))
        finally:
            holder.kill()
    assert done.returncode == 3, done.stderr
    assert f"port {port} of {wish.hosts[0]}" in done.stderr
