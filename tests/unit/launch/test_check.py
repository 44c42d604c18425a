"""`temper check` on this machine: a real look and a real rehearsal of one rank."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.config import load
from launch.cluster import Hosts, Local, place
from launch.hardware import GPUS
from launch.survey import wanted
from tests.unit.launch.test_cli import ROOT, temper

TINY = ROOT / "configs" / "tiny" / "base"


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    file = tmp_path / "here.yaml"
    file.write_text("kind: local\ngpus_per_node: 0\n")
    return file


@pytest.fixture()
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    tree = {
        "output": str(tmp_path / "run"),
        "model": {"path": str(TINY)},
        "data": {"train": [{"path": str(tmp_path / "rows.jsonl")}]},
        "parallel": {"device": "cpu", "precision": "fp32"},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_this_machine_is_ready_and_nothing_is_written(run_file: Path, here: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    done = temper("check", str(run_file), "--on", str(here))
    assert done.returncode == 0, done.stderr
    assert "1 node ready" in done.stderr and "1 rank met over gloo" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_amiss_is_told_together_and_ends_with_three(run_file: Path, here: Path) -> None:
    local = place(str(here))
    assert isinstance(local, Local)
    port = wanted(load(run_file, []).run, local, "train").port
    code = f"ulimit -n 200; exec {sys.executable} -m launch check {run_file} --on {here}"
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(["/bin/sh", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert re.match(rf"temper: node 0 \(.+\): port {port} of 127.0.0.1 is taken: end the process", lines[0])
    assert "a process may open 200 files" in lines[1]
    assert lines[2].startswith("temper: 2 to mend; checked in")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--set", "train.steps=3"], "none is named"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_wish_is_one_sentence(here: Path, words: list[str], hint: str) -> None:
    done = temper("check", *words, "--on", str(here))
    assert done.returncode == 2 and hint in done.stderr and done.stderr.count("\n") == 1


def test_unchecked_is_refused_where_nothing_would_be_checked(run_file: Path) -> None:
    done = temper("train", str(run_file), "--unchecked")
    assert done.returncode == 2 and "without --on" in done.stderr


def test_what_a_run_needs_follows_from_it(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = tmp_path / "hosts.yaml"
    cluster.write_text("kind: hosts\nhosts: [a, b]\ngpus_per_node: 8\ngpu: h100\nenvironment: [SOME_TOKEN]\n")
    monkeypatch.setenv("SOME_TOKEN", "secret-0123")
    found = place(str(cluster))
    assert isinstance(found, Hosts)
    changes = ["parallel.device=auto", "parallel.processes=4", "parallel.strategy=ddp", "sandbox.level=user"]
    run = load(run_file, changes).run
    asked = wanted(run, found, "train")
    assert (asked.nodes, asked.ranks, asked.device, asked.gpus, asked.head) == (2, 4, "cuda", 8, "a")
    assert asked.gpu_memory_gib == GPUS["h100"].memory_gib and asked.level == ""
    assert asked.files == (str(tmp_path / "rows.jsonl"),) and asked.models == (str(TINY),)
    # fp32 masters and two moments of 79 thousand and more weights, several times.
    assert asked.disk_bytes > 4 * 12 * 50_000
    assert wanted(run, found, "evaluate").level == "user"
    assert asked.environment == {"SOME_TOKEN": "secret-0123"} and "secret" not in repr(asked)
