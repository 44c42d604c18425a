"""The machines that cluster tests play: two hosts, sshd in each, and SLURM over them, once a session."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.machines import Missing, Slurm, Wish, running_slurm, sh, two_hosts, until


@pytest.fixture(scope="session")
def hosts() -> Iterator[list[str]]:
    """Addresses of two namespaces on one bridge; each is named `temper-ADDRESS`."""
    try:
        with two_hosts() as addresses:
            yield addresses
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def sshd(hosts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An ssh daemon in each namespace; gives the keys of a cluster file that reach them."""
    daemon = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(daemon).is_file() or shutil.which("ssh") is None:
        pytest.skip("needs ssh and sshd (openssh-client, openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    options = [
        "-i",
        str(folder / "user"),
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "StrictHostKeyChecking=no",
    ]
    options += ["-o", "LogLevel=ERROR"]
    daemons = [
        subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/temper-{host}",
                daemon,
                "-D",
                "-e",
                "-f",
                str(folder / "sshd_config"),
            ],
            stderr=(folder / f"{host}.log").open("wb"),
        )
        for host in hosts
    ]
    reach = ["ssh", *options, "-p", "2222", hosts[1], "true"]
    try:
        until(lambda: subprocess.run(reach, capture_output=True).returncode == 0, "sshd", folder, 20)
        yield {"port": 2222, "options": options, "user": "root"}
    finally:
        for one in daemons:
            one.terminate()
            one.wait()


@pytest.fixture(scope="session")
def slurm(hosts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A controller beside the namespaces, and a node daemon in each of them."""
    try:
        with running_slurm(hosts, tmp_path_factory.mktemp("slurm")) as found:
            yield found
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture()
def wish(tmp_path: Path, hosts: list[str]) -> Wish:
    return Wish(tmp_path, hosts)
