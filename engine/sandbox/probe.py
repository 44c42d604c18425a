"""What this kernel grants, found by doing it in throw-away jails; no setting is read and believed."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import WishError
from .engines import ENGINES, version_of
from .pool import Pool
from .verdict import LEVELS, Limits, Program

_NEEDS = {
    "full": "a cgroup this user may write with the memory and pids controllers, besides what level user needs: "
    "run as root on a host, or with a delegated cgroup (systemd: Delegate=yes)",
    "user": "user namespaces: sysctl user.max_user_namespaces above 0; on Ubuntu 23.10 and newer "
    "kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined or a profile that "
    "allows unshare, mount and pivot_root; in Kubernetes seccompProfile: Unconfined",
    "process": "a kernel with landlock version 3 (Linux 6.2) and seccomp filters",
}


@dataclass(frozen=True, slots=True)
class OuterEngine:
    """An outer engine as it was found: its version (None where it is not installed), and why it does not work."""

    name: str
    version: str | None
    problem: str
    needs: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The best isolation to be had, and for each level why not (empty where it works)."""

    level: str
    """full, user, process, or none."""
    levels: dict[str, str]
    needs: dict[str, str]
    """What an administrator must grant, for the levels that do not work."""
    engines: tuple[OuterEngine, ...] = ()


def probe() -> Probe:
    """Try each level, and each outer engine, by running a program in it."""
    levels = {level: _problem(level) for level in LEVELS}
    best = next((level for level, problem in levels.items() if not problem), "none")
    needs = {level: _NEEDS[level] for level, problem in levels.items() if problem}
    return Probe(best, levels, needs, tuple(map(_engine, ENGINES)) if best != "none" else ())


def _engine(name: str) -> OuterEngine:
    return OuterEngine(name, version_of(name), _problem(None, name), ENGINES[name].install)


def _problem(level: str | None, engine: str | None = None) -> str:
    try:
        with Pool(1, level, ceiling=level, engine=engine) as pool:
            verdict = pool.run(Program("assert 1 + 1 == 2"), Limits(wall_seconds=10))
    except WishError as error:
        return error.what
    return "" if verdict.passed else f"{verdict.name}: {verdict.detail}"
