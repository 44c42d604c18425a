"""What speaks against starting a run on these nodes: findings, each with node, value and remedy, from plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from launch.inspection import Facts, Met, Room, Wanted

GIB = 2**30
# The order of deaths is decided by clocks (`launch.reports`).
MOST_SKEW_SECONDS = 0.5
# NCCL's and data loaders' segments; the container default of 64 MiB is too little for either on a GPU node.
LEAST_SHARED = {"cuda": GIB, "cpu": 64 * 2**20}
# Sockets of the ranks, files of the loader, pipes of the sandbox.
LEAST_OPEN_FILES = 1024
# Drivers keep more or less of a card for themselves.
MEMORY_TOLERANCE = 0.95
LEVELS = ("none", "process", "user", "full")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must be mended; `where` names the node, or `all nodes`."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Survey:
    """All that the nodes answered, by their numbers.

    Attributes:
        names: what every node is called, answered or not.
        facts: what each told of itself.
        silent: why nodes did not answer, as far as it is known.
        folder: the folder that was written, the nearest parent of the run folder that a node has.
        rooms: how each found that folder.
        seen: the nodes whose files each saw in it.
        skew: seconds by which each clock is ahead of this machine's, and how much that may be off.
        met: how the rehearsal went; empty where there was none.
    """

    names: tuple[str, ...]
    facts: dict[int, Facts] = field(default_factory=dict)
    silent: dict[int, str] = field(default_factory=dict)
    folder: str = ""
    rooms: dict[int, Room] = field(default_factory=dict)
    seen: dict[int, tuple[int, ...]] = field(default_factory=dict)
    skew: dict[int, tuple[float, float]] = field(default_factory=dict)
    met: dict[int, Met] = field(default_factory=dict)

    def name(self, node: int) -> str:
        """A node as findings call it."""
        return f"node {node} ({self.names[node]})"


def findings(wanted: Wanted, survey: Survey) -> tuple[Finding, ...]:
    """Everything at once; empty where nothing speaks against the run."""
    found = [*_silent(survey), *_versions(survey)]
    for node, facts in sorted(survey.facts.items()):
        name = survey.name(node)
        found += [Finding(name, what, remedy) for what, remedy in _node(wanted, facts)]
    return (*found, *_shared(wanted, survey), *_clocks(survey), *_meeting(survey))


def may_meet(survey: Survey) -> bool:
    """Whether a rehearsal can succeed at all: every node answers, has its GPUs, and knows where the head listens."""
    able = all(
        facts.head and facts.address and not facts.port and not facts.smi for facts in survey.facts.values()
    )
    return able and len(survey.facts) == len(survey.names)


def _silent(survey: Survey) -> Iterator[Finding]:
    for node, why in sorted(survey.silent.items()):
        yield Finding(
            survey.name(node),
            f"it did not answer ({why})",
            "see that the cluster file's way to it works without a password and that its `python` has Temper installed",
        )


def _versions(survey: Survey) -> Iterator[Finding]:
    """Nodes that differ from what most have; of two that differ, from the first."""
    for package in dict.fromkeys(name for facts in survey.facts.values() for name in facts.versions):
        versions = {node: facts.versions.get(package, "") for node, facts in sorted(survey.facts.items())}
        usual = Counter(versions.values()).most_common(1)[0][0]
        # Temper itself may lie beside the run, not installed.
        if not usual and package != "temper-llm":
            yield Finding(
                "most nodes", f"{package} is not installed", "install Temper with all it stands on there"
            )
            continue
        for node, version in versions.items():
            if version != usual:
                other = next(survey.name(one) for one, had in versions.items() if had == usual)
                has = f"{package} is {version}" if version else f"{package} is not installed"
                want = f"{package}=={usual}" if usual else f"no {package}"
                yield Finding(
                    survey.name(node),
                    f"{has}, and {usual or 'not installed'} on {other}",
                    f"install {want} there, or the same version everywhere",
                )


def _node(wanted: Wanted, facts: Facts) -> Iterator[tuple[str, str]]:
    """What one node lacks, as told by itself: what and remedy."""
    if not facts.directory:
        yield (
            f"the working folder {wanted.directory} is not there",
            "mount it there, or set `folder` in the cluster file",
        )
    if not facts.head:
        yield f"the head's address {wanted.head} is not known", "see DNS or /etc/hosts there"
    elif not facts.address or not facts.interface:
        yield f"no interface leads to the head {facts.head}", "see `ip route` there"
    elif wanted.nodes > 1 and facts.head.startswith("127."):
        yield (
            f"the head {wanted.head} is {facts.head}, which only it can reach",
            "name an address of the network that the nodes share first",
        )
    if facts.port:
        yield facts.port, "end the process that holds it (ss -ltnp), or name this machine's own address first"
    yield from _cards(wanted, facts)
    if facts.shared_memory < (least := LEAST_SHARED[wanted.device]):
        yield (
            f"/dev/shm has {_size(facts.shared_memory)} free, and {_size(least)} are needed",
            "empty it, or mount it larger (mount -o remount,size=16G /dev/shm; docker --shm-size)",
        )
    if 0 <= facts.open_files < LEAST_OPEN_FILES:
        yield (
            f"a process may open {facts.open_files} files, and needs {LEAST_OPEN_FILES}",
            "raise nofile in /etc/security/limits.conf (ulimit -n)",
        )
    if wanted.level:
        yield from _level(wanted.level, facts.level)
    for place, why in facts.problems.items():
        yield (
            f"{place} cannot be read: {why}",
            "copy it to a disk that all nodes share (from the hub: into HF_HOME), or mend the path",
        )


def _cards(wanted: Wanted, facts: Facts) -> Iterator[tuple[str, str]]:
    if not wanted.gpus:
        return
    if facts.smi:
        yield facts.smi, "install the NVIDIA driver, or hand the GPUs to the container"
        return
    if len(facts.cards) < wanted.gpus:
        yield (
            f"{len(facts.cards)} GPUs, and the cluster file says {wanted.gpus}",
            "see nvidia-smi -L there, or correct gpus_per_node",
        )
    small = [
        card for card in facts.cards if 0 < card.memory_mib < wanted.gpu_memory_gib * 1024 * MEMORY_TOLERANCE
    ]
    if small:
        yield (
            f"{small[0].name} has {small[0].memory_mib / 1024:.1f} GiB, and the plan counts on "
            f"{wanted.gpu_memory_gib:g} GiB",
            "correct gpu or gpu_memory_gib, and see `temper plan --on`",
        )


def _level(wanted: str, level: str) -> Iterator[tuple[str, str]]:
    least = "process" if wanted == "any" else wanted
    if level not in LEVELS or LEVELS.index(level) < LEVELS.index(least):
        yield (
            f"programs are isolated at level {level or 'none'}, and the run wants {least}",
            "see `temper sandbox probe` there for what is missing, or set sandbox.level",
        )


def _shared(wanted: Wanted, survey: Survey) -> Iterator[Finding]:
    """The disk that all must share: visible, writable, the same, and large enough."""
    for node, facts in sorted(survey.facts.items()):
        if node in survey.rooms or not survey.folder or not facts.directory:
            continue
        if facts.parent == survey.folder:
            what, remedy = (
                f"{survey.folder} did not answer in time",
                "see the disk's mount there (`stat`, `dmesg`)",
            )
        else:
            what = f"there is no folder {survey.folder}, and other nodes have it"
            remedy = "mount the shared disk there"
        yield Finding(survey.name(node), what, remedy)
    written = {node for node, room in survey.rooms.items() if not room.problem}
    for node, room in sorted(survey.rooms.items()):
        name = survey.name(node)
        if room.problem:
            yield Finding(
                name,
                f"{survey.folder} cannot be written ({room.problem.lower()})",
                "make room or mount it writable there, or set `output` to another folder",
            )
            continue
        if missing := sorted(written - set(survey.seen.get(node, ()))):
            others = " and ".join(survey.name(one) for one in missing)
            yield Finding(
                name,
                f"{survey.folder} does not show what {others} wrote there",
                "set `output` to a folder on a disk that all nodes share",
            )
        if room.free_bytes < wanted.disk_bytes:
            yield Finding(
                name,
                f"{survey.folder} has {_size(room.free_bytes)} free, and the run's checkpoints need "
                f"{_size(wanted.disk_bytes)}",
                "make room, lower checkpoint.keep_last, or set `output` to another disk",
            )
        if room.free_inodes < wanted.inodes:
            yield Finding(
                name,
                f"{survey.folder} has {room.free_inodes} inodes free, and the run needs {wanted.inodes}",
                "remove files there, or set `output` to another disk",
            )


def _clocks(survey: Survey) -> Iterator[Finding]:
    if 0 not in survey.skew:
        return
    first, first_error = survey.skew[0]
    for node, (ahead, error) in sorted(survey.skew.items()):
        apart = ahead - first
        if abs(apart) - error - first_error > MOST_SKEW_SECONDS:
            yield Finding(
                survey.name(node),
                f"its clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} {survey.name(0)}'s",
                "set both by NTP (timedatectl, chronyc tracking)",
            )


def _meeting(survey: Survey) -> Iterator[Finding]:
    if not may_meet(survey):
        return
    for node in sorted(survey.facts):
        met = survey.met.get(node)
        if met is None or met.problem:
            how = f"over {met.backend} failed: {met.problem}" if met else "was not heard of again"
            yield Finding(
                survey.name(node),
                f"the rehearsal {how}",
                "see firewalls between the nodes, and GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME",
            )


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"
