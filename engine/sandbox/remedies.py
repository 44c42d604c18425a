"""What an administrator must grant, for each step a kernel refuses and each place this may run in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .foreign.toolchain import python

_STEPS = {
    "cgroup": r"cgroup",
    "landlock": r"landlock",
    "mounts": r"\bu?mount\b|pivot_root|build the tree",
    "namespaces": r"unshare|clone|user map|uid_map|gid_map|setgroups",
}
"""What the message of a refused step has in it, the first that fits."""

STEPS = {
    "cgroup": "making a cgroup with memory and pids",
    "landlock": "confining a process with landlock",
    "mounts": "mounting a file system tree of its own",
    "namespaces": "making namespaces as an unprivileged user",
}

NEEDS = {
    "full": "what level user needs, and a cgroup this user may write with the memory and pids controllers",
    "user": "user namespaces, and mounting inside them (unshare, mount, pivot_root)",
    "process": "a kernel with landlock version 3 (Linux 6.2) and seccomp filters",
}

PLACES = {
    "kubernetes": "Kubernetes",
    "podman": "Podman",
    "docker": "Docker",
    "slurm": "Slurm",
    "ubuntu": "Ubuntu",
    "systemd": "a host with systemd",
    "linux": "any Linux host",
}
"""Nearest to the program first: a pod on Ubuntu is refused by its pod before its host."""

_OWN_GROUP = (
    "sh -c 'mkdir /sys/fs/cgroup/main && echo 0 > /sys/fs/cgroup/main/cgroup.procs && exec temper ...'"
)
_CALLS = "unshare, clone and clone3 with namespace flags, mount, umount2, pivot_root, sethostname"
_POD = "securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}"


def _apparmor() -> str:
    path = os.path.realpath(python())
    return (
        f"an AppArmor profile for this Python alone: write `abi <abi/4.0>, profile temper {path} "
        "flags=(unconfined) { userns, }` into /etc/apparmor.d/temper and load it with apparmor_parser -r "
        "/etc/apparmor.d/temper; or for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )


def _table() -> dict[tuple[str, str], str]:
    docker = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    pod = (
        f"{_POD} of the container (before Kubernetes 1.30 the annotation "
        "container.apparmor.security.beta.kubernetes.io/CONTAINER: unconfined); a seccompProfile of type Localhost "
        f"will do as well if it allows {_CALLS}; its namespace must not enforce pod security baseline or restricted"
    )
    run = (
        f"docker run {docker}, or in place of unconfined Docker's default profile with {_CALLS} allowed; "
        "--security-opt systempaths=unconfined lets programs have a /proc"
    )
    podman = (
        "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL, or in place of unconfined the "
        f"default profile with {_CALLS} allowed"
    )
    slurm = "on the nodes: sysctl -w user.max_user_namespaces=15000, in /etc/sysctl.d to last"
    return {
        ("kubernetes", "namespaces"): pod,
        ("kubernetes", "mounts"): pod,
        ("kubernetes", "cgroup"): (
            "pods are given no cgroup to write; containerd 2.1 and newer can (cgroup_writable = true of the runtime "
            f"in its config.toml), then start with {_OWN_GROUP}; without it level user is the strongest"
        ),
        ("docker", "namespaces"): run,
        ("docker", "mounts"): run,
        ("docker", "cgroup"): (
            f"as root on cgroup version 2, Docker 28 and newer: docker run --security-opt writable-cgroups=true and "
            f"{_OWN_GROUP}; older: -v /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns=host, which shows the container "
            "every group of its host; without it level user is the strongest"
        ),
        ("podman", "namespaces"): podman,
        ("podman", "mounts"): podman,
        ("podman", "cgroup"): (
            f"podman run --security-opt unmask=/sys/fs/cgroup on cgroup version 2, and {_OWN_GROUP}"
        ),
        ("slurm", "namespaces"): slurm,
        ("slurm", "mounts"): slurm,
        ("slurm", "cgroup"): (
            "Slurm delegates no cgroup to a job's user, so level user is the strongest; ConstrainRAMSpace=yes in "
            "cgroup.conf bounds the job as a whole"
        ),
        ("ubuntu", "namespaces"): _apparmor(),
        ("ubuntu", "mounts"): _apparmor(),
        ("systemd", "cgroup"): (
            "as an ordinary user on cgroup version 2: systemd-run --user --scope -p Delegate=yes temper ...; for a "
            "service Delegate=yes in its unit; root needs nothing"
        ),
        ("linux", "namespaces"): (
            "sysctl -w user.max_user_namespaces=15000 (0 forbids them all); on older Debian also "
            "kernel.unprivileged_userns_clone=1; or run as root"
        ),
        ("linux", "cgroup"): (
            "mount cgroup version 2 and give this user a group with memory and pids in cgroup.subtree_control of the "
            "one above it; or run as root"
        ),
        (
            "linux",
            "landlock",
        ): "Linux 6.2 or newer with landlock among the modules of the boot line (lsm=landlock,...)",
    }


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to grant in one place, for one step that was refused."""

    step: str
    place: str
    here: bool
    """Whether this looks like that place."""
    how: str


def step_of(problem: str) -> str:
    """Which step of building a jail the kernel refused, by its message; empty for one that is not known."""
    return next((step for step, sign in _STEPS.items() if re.search(sign, problem)), "")


def places(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """What this place looks like by the usual signs, nearest first; `root` and `environment` are for tests."""
    release = root / "etc/os-release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    signs = {
        "kubernetes": "KUBERNETES_SERVICE_HOST" in environment,
        "podman": (root / "run/.containerenv").exists(),
        "docker": (root / ".dockerenv").exists(),
        "slurm": "SLURM_JOB_ID" in environment,
        "ubuntu": re.search(r"^ID(_LIKE)?=.*\bubuntu\b", text, re.MULTILINE) is not None,
        "systemd": (root / "run/systemd/system").is_dir(),
        "linux": True,
    }
    found = [place for place in PLACES if signs[place]]
    if "kubernetes" in found:  # whatever runs its containers is told what to allow by the pod
        found = [place for place in found if place not in ("docker", "podman")]
    return tuple(found)


def remedies(steps: list[str], here: tuple[str, ...]) -> tuple[Remedy, ...]:
    """For each refused step what to do, in the places this looks like first."""
    table = _table()
    order = [*here, *(place for place in PLACES if place not in here)]
    return tuple(
        Remedy(step, place, place in here, table[place, step])
        for step in steps
        for place in order
        if (place, step) in table
    )
