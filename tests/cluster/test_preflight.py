"""`temper check` on two namespaces: what is really amiss on one of them is told of it, and of nobody else.

The second node gets a mount namespace of its own, so that its disks, limits and packages can differ.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch import processes
from tests.cluster.machines import ROOT, TEMPER, Slurm, Wish, sh

# Those without it take seconds and are part of the default suite, where root and the tools are there.
cluster = pytest.mark.cluster


class Pair:
    """A run on two nodes; `second` is what a shell does on node 1 before it is looked at."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.shared = wish.folder / "shared"
        self.shared.mkdir()
        self.run = wish.run("run")
        self.run.write_text(self.run.read_text().replace(str(wish.folder / "run"), str(self.shared / "run")))
        self.first, self.other = (f"node {n} ({host})" for n, host in enumerate(wish.hosts))

    def temper(self, verb: str, *words: str, second: str = "") -> subprocess.CompletedProcess[str]:
        for host, lines in zip(self.wish.hosts, ("", second), strict=True):
            (self.wish.folder / f"{host}.sh").write_text(f'set -e\n{lines}\nexec "$@"\n')
        way = ["nsenter", "--net=/run/netns/temper-{host}", "unshare", "--mount", "sh"]
        place = self.wish.cluster("hosts", command=[*way, f"{self.wish.folder}/{{host}}.sh"])
        return subprocess.run(
            [*TEMPER, verb, str(self.run), "--on", str(place), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def findings(self, second: str = "") -> list[str]:
        done = self.temper("check", second=second)
        lines = done.stderr.splitlines()
        assert done.returncode == (3 if len(lines) > 1 else 0), done.stderr
        assert not list(self.shared.glob(".temper-check-*")), "a mark was left behind"
        return [line.removeprefix("temper: ") for line in lines[:-1]]


@pytest.fixture()
def pair(wish: Wish) -> Pair:
    return Pair(wish)


def about(found: list[str], node: str) -> list[str]:
    assert all(line.startswith(node) for line in found), found
    return [line.removeprefix(f"{node}: ") for line in found]


def test_two_nodes_that_are_well_meet_and_nothing_is_left(pair: Pair) -> None:
    done = pair.temper("check", "--evaluate")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"2 nodes ready, torch \S+, 2 ranks met over gloo in \S+ s, all-reduce [\d.]+ GB/s", done.stderr
    )
    assert list(pair.shared.iterdir()) == []


@cluster
def test_all_that_differs_on_the_second_node_is_told_at_once(pair: Pair) -> None:
    stub = pair.wish.folder / "stub"
    (stub / "torch-9.9.9.dist-info").mkdir(parents=True)
    (stub / "torch-9.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 9.9.9\n"
    )
    # No clock of this machine is moved: the node's Python alone reads another time.
    (stub / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 7.0\n"
    )
    second = (
        f"export PYTHONPATH={stub}\nulimit -n 300\nmount -t tmpfs -o size=1m none /dev/shm\n"
        f"mount --bind {pair.shared} {pair.shared}\nmount -o remount,ro,bind {pair.shared}"
    )
    found = about(pair.findings(second), pair.other)
    wanted = (
        r"torch is 9\.9\.9, and \S+ on node 0 .*: install torch==",
        r"/dev/shm has 1 MiB free",
        r"a process may open 300 files",
        rf"{pair.shared} cannot be written \(read-only file system\)",
        r"its clock is 7\.\d s ahead of node 0",
    )
    assert len(found) == len(wanted), found
    for pattern, line in zip(wanted, found, strict=True):
        assert re.match(pattern, line), line


@cluster
def test_a_folder_of_the_same_name_that_is_another_disk_is_told(pair: Pair) -> None:
    found = pair.findings(f"mount -t tmpfs none {pair.shared}")
    assert len(found) == 2
    assert f"{pair.shared} does not show what {pair.first} wrote there" in found[1]


@cluster
def test_a_shared_folder_that_is_missing_is_told(pair: Pair) -> None:
    found = about(pair.findings(f"mount -t tmpfs none {pair.wish.folder}"), pair.other)
    assert any(
        line.startswith(f"there is no folder {pair.shared}, and other nodes have it") for line in found
    )
    assert any("train.jsonl cannot be read: there is no such file" in line for line in found)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    sh("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        yield
    finally:
        sh("umount", str(folder))


@cluster
def test_a_full_disk_and_a_small_one_are_told_with_what_the_run_needs(pair: Pair) -> None:
    with small_disk(pair.shared, "256k"):
        found = pair.findings()
        assert len(found) == 2
        assert re.search(r"has 0 MiB free, and the run's checkpoints need \d+ MiB", found[0]), found
        fill = pair.shared / "fill"
        with pytest.raises(OSError), fill.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        found = [line for line in pair.findings() if "no space left on device" in line]
        assert len(found) == 2


@cluster
def test_a_taken_port_is_told_of_the_head(pair: Pair) -> None:
    port = re.search(r'"port": (\d+)', pair.temper("train", "--dry-run").stdout)[1]  # type: ignore[index]
    listen = f"import socket,time; s=socket.create_server(('{pair.wish.hosts[0]}', {port})); time.sleep(300)"
    space = f"--net=/run/netns/temper-{pair.wish.hosts[0]}"
    with subprocess.Popen(["nsenter", space, "python3", "-c", listen]) as holder:
        try:
            time.sleep(2)
            (found,) = about(pair.findings(), pair.first)
        finally:
            holder.kill()
    assert found.startswith(f"port {port} of {pair.wish.hosts[0]} is taken: end the process")


@cluster
def test_a_way_that_swallows_answers_fails_the_rehearsal_and_keeps_a_run_from_starting(pair: Pair) -> None:
    """The head hears the other node and its answers go nowhere: only a real rendezvous finds that."""
    space, other = f"temper-{pair.wish.hosts[0]}", pair.wish.hosts[1]
    sh("ip", "-n", space, "route", "add", "blackhole", f"{other}/32")
    try:
        done = pair.temper("train")
    finally:
        sh("ip", "-n", space, "route", "del", "blackhole", f"{other}/32")
    assert done.returncode == 3, done.stderr
    assert re.search(rf"{re.escape(pair.other)}: the rehearsal over gloo failed: ", done.stderr), done.stderr
    assert list(pair.shared.iterdir()) == []


def test_a_node_without_temper_is_told_with_its_words(pair: Pair) -> None:
    found = about(pair.findings("echo no way in >&2; exit 9"), pair.other)
    assert found and found[0].startswith("it did not answer (no way in)")


@cluster
def test_a_node_that_hangs_is_told_and_left_behind(pair: Pair) -> None:
    found = about(pair.findings("sleep 1000.5"), pair.other)
    assert found and found[0].startswith("it did not answer (no word in time)")
    assert not [row for row in processes.table() if "1000.5" in processes.words(row.pid)]


@cluster
def test_nodes_of_slurm_are_looked_at_by_one_srun(pair: Pair, slurm: Slurm) -> None:
    place = pair.wish.cluster("slurm", nodes=2, cpus_per_node=1)
    words = [*TEMPER, "check", str(pair.run), "--on", str(place)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=90, env=slurm.environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 nodes ready, torch \S+, 2 ranks met over gloo", done.stderr)
    assert list(pair.shared.iterdir()) == []
    # Nodes that are not there are not waited for.
    more = pair.wish.cluster("slurm", nodes=3, cpus_per_node=1)
    words = [*TEMPER, "check", "--on", str(more)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=90, env=slurm.environment)
    assert done.returncode == 3 and "it did not answer (srun: error:" in done.stderr, done.stderr
