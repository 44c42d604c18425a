"""Two network namespaces as two hosts, and a real SLURM over them: set up here, and taken down here.

Needs root, iproute2 and util-linux; SLURM also slurmctld, slurmd, slurm-client and munge (Debian's names).
Nothing of an installed SLURM's own configuration is read or changed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launch import processes

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "configs" / "tiny" / "base"
TEMPER = [sys.executable, "-m", "launch"]


class Missing(Exception):
    """This machine cannot play several."""


def sh(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Addresses of two namespaces on one bridge; each is named `temper-ADDRESS`."""
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        raise Missing(f"needs root and the tools {missing or ''}")
    octet = os.getpid() % 200 + 20
    addresses = [f"10.78.{octet}.{node}" for node in (1, 2)]
    bridge = f"tbr{octet}"
    try:
        try:
            _connect(addresses, bridge, octet)
        except AssertionError as error:
            # A container's root may not do this.
            raise Missing(f"cannot play two hosts: {error}") from None
        yield addresses
    finally:
        for address in addresses:
            sh("ip", "netns", "del", f"temper-{address}", check=False)
        sh("ip", "link", "del", bridge, check=False)


def _connect(addresses: list[str], bridge: str, octet: int) -> None:
    sh("ip", "link", "add", bridge, "type", "bridge")
    sh("ip", "link", "set", bridge, "up")
    for node, address in enumerate(addresses):
        space, link = f"temper-{address}", f"tve{octet}n{node}"
        sh("ip", "netns", "add", space)
        sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        sh("ip", "link", "set", link, "master", bridge, "up")
        sh("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        sh("ip", "-n", space, "link", "set", "eth0", "up")
        sh("ip", "-n", space, "link", "set", "lo", "up")
    # The controller and its daemons talk over the bridge as well.
    sh("ip", "addr", "add", f"10.78.{octet}.254/24", "dev", bridge)


@dataclass
class Slurm:
    """A running SLURM; `environment` leads its commands to it."""

    folder: Path
    environment: dict[str, str]
    hosts: list[str]
    start_node: Callable[[int], None]

    @contextmanager
    def fallen(self, node: int) -> Iterator[None]:
        """A node whose power is cut: nothing of it is left, until it is started again."""
        space = os.stat(f"/run/netns/temper-{self.hosts[node - 1]}").st_ino
        for row in processes.table():
            with suppress(OSError):
                here = os.stat(f"/proc/{row.pid}/ns/net").st_ino == space
                if here and not any("sshd" in word for word in processes.words(row.pid)[:1]):
                    os.kill(row.pid, signal.SIGKILL)
        try:
            yield
        finally:
            self.start_node(node)
            self.ask("scontrol", "update", f"nodename=n{node}", "state=resume")

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()


@contextmanager
def running_slurm(hosts: list[str], folder: Path) -> Iterator[Slurm]:
    """A controller beside the namespaces, and a node daemon in each of them."""
    tools = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        raise Missing(f"needs {', '.join(missing)}")
    # munged refuses a socket below folders that others may write to.
    run = Path(f"/run/temper-slurm-{os.getpid()}")
    run.mkdir(mode=0o755)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(_slurm_conf(folder, run, hosts))
    (folder / "cgroup.conf").write_text(
        "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nIgnoreSystemd=yes\n"
    )
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        log = (folder / f"{len(daemons)}.log").open("wb")
        daemons.append(
            subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        )

    def start_node(node: int) -> None:
        space = f"--net=/run/netns/temper-{hosts[node - 1]}"
        start("nsenter", space, "slurmd", "-D", "-N", f"n{node}", "-f", str(folder / "slurm.conf"))

    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
            f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid",
            f"--seed-file={run}/munged.seed", f"--log-file={folder}/munged.log",
        )  # fmt: skip
        until(lambda: (run / "munge.socket").exists(), "munged's socket")
        start("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        for node in range(1, 1 + len(hosts)):
            start_node(node)
        found = Slurm(folder, environment, hosts, start_node)
        until(lambda: _idle(environment) == 2, "two idle nodes", folder)
        yield found
    finally:
        for daemon in reversed(daemons):
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
        shutil.rmtree(run, ignore_errors=True)


def _slurm_conf(folder: Path, run: Path, hosts: list[str]) -> str:
    name = os.uname().nodename
    controller = hosts[0].rsplit(".", 1)[0] + ".254"
    lines = [
        "ClusterName=temper",
        f"SlurmctldHost={name}({controller})",
        "SlurmUser=root", "SlurmdUser=root",
        "AuthType=auth/munge", f"AuthInfo=socket={run}/munge.socket,cred_expire=10", "CredType=cred/munge",
        f"SlurmctldPort={16000 + os.getpid() % 1000}",
        f"StateSaveLocation={folder}/state", f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={run}/slurmctld.pid", f"SlurmdPidFile={run}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log", f"SlurmdLogFile={folder}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "MpiDefault=none",
        "SchedulerType=sched/backfill", "SelectType=select/linear", "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none", "KillWait=20", "MinJobAge=600",
        "ReturnToService=2", "InactiveLimit=0", "SlurmdTimeout=300",
    ]  # fmt: skip
    for node, address in enumerate(hosts, 1):
        lines.append(
            f"NodeName=n{node} NodeHostname={name} NodeAddr={address} Port={17000 + node} CPUs=1 State=UNKNOWN"
        )
    # Jobs of the second make room for those of the third, and are asked first.
    lines += [
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",
    ]
    for words in ("all Default=YES PriorityTier=2", "low PriorityTier=1 GraceTime=60", "high PriorityTier=9"):
        lines.append(f"PartitionName={words} Nodes=n1,n2 MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"


def _idle(environment: dict[str, str]) -> int:
    words = ["sinfo", "--noheader", "-N", "--partition=all", "--format=%T"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    return done.stdout.split().count("idle")


def until(ready: Callable[[], bool], what: str, folder: Path | None = None, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        logs = (
            "".join(log.read_text(errors="replace")[-1500:] for log in sorted(folder.glob("*.log")))
            if folder
            else ""
        )
        assert time.monotonic() < deadline, f"{what} did not come: {logs}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Wish:
    """Files of a run on two nodes of one CPU rank each."""

    folder: Path
    hosts: list[str]

    def run(self, name: str, **parallel: Any) -> Path:
        rows = [{"prompt": f"def f{n}(x):\n", "completion": f"    return x + {n}\n"} for n in range(60)]
        (self.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tree = {
            "output": str(self.folder / name),
            "model": {"path": str(TINY)},
            "data": {"train": [{"path": str(self.folder / "train.jsonl")}], "max_length": 96},
            "train": {"steps": 4, "global_batch": 4, "learning_rate": 2e-3, "warmup_steps": 1, "log_every": 1},
            "parallel": {
                "strategy": "zero3", "processes": 1, "device": "cpu", "precision": "fp32", "threads": 1, **parallel,
            },
            "evaluate": {"benchmark": "basics", "split": "test", "limit": 4, "max_new_tokens": 16},
        }  # fmt: skip
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file

    def cluster(self, kind: str, **more: Any) -> Path:
        tree: dict[str, Any] = {"kind": kind, "gpus_per_node": 0}
        if kind == "hosts":
            tree |= {"hosts": self.hosts, "command": ["nsenter", "--net=/run/netns/temper-{host}"]}
        tree |= more
        file = self.folder / f"{kind}.yaml"
        file.write_text(yaml.safe_dump(tree))
        return file
