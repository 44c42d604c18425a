"""Outer engines: other people's containers around a program, for those who want a second kernel boundary.

Each is optional and found by running it. One that is not there, or does not work here, is refused with what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from ...errors import WishError

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Where engines and their helpers are looked for besides the user's own PATH."""
_VERSION_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A row of the table: what it is, and how to get it."""

    name: str
    what: str
    install: str
    """How a user gets it, and what it needs of the machine."""


ENGINES = {
    "runsc": Engine(
        "runsc",
        "gVisor: a kernel in user space answers the program's system calls",
        "install gVisor (Debian and Ubuntu: apt-get install runsc; else https://gvisor.dev/docs/user_guide/install) "
        "and let this user trace processes (ptrace)",
    ),
    "podman": Engine(
        "podman",
        "a container by podman and crun: the host's kernel, behind another party's namespaces and seccomp profile",
        "install podman and crun (Debian and Ubuntu: apt-get install podman crun uidmap; an ordinary user also needs a "
        "range in /etc/subuid and /etc/subgid); crun refuses a machine that mounts cgroups of both versions",
    ),
}


def path_of(name: str) -> str | None:
    """The engine's executable; None where it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}")


def version_of(name: str) -> str | None:
    """What the installed engine says of itself, in one line; None where it is not installed."""
    path = path_of(name)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not say: {error}"
    return done.stdout.partition("\n")[0].strip()


def find(name: str) -> str:
    """The engine's executable. Raises WishError for one there is no row for, or that is not installed."""
    if name not in ENGINES:
        raise WishError(f"there is no outer engine {name!r}", f"use one of {', '.join(ENGINES)}")
    path = path_of(name)
    if path is None:
        raise WishError(f"{name} is not installed (it is not on the PATH)", ENGINES[name].install)
    return path


def refusal(name: str, reason: str) -> WishError:
    """The error for an engine that is installed and does not work here."""
    return WishError(f"{name} cannot hold a program on this machine ({reason})", ENGINES[name].install)
