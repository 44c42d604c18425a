"""The warm interpreter inside a jail: one fork per program, watched, ended with all it started, and wiped after.

A zygote never sees a program's text or its tests: the fork reads them itself from a descriptor, so that nothing of one
program is in the memory the next one inherits.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import jail, judge, kernel, landlock, seccomp, solution
from .scratch import Scratch
from .verdict import MOST_WALL

_RESERVED = 16
"""Descriptors below this are kept taken, so that those a program is handed can be moved to 0, 1, 2 ... safely."""
_MAX_FILES = 256
_FIXED_LIMITS = {
    resource.RLIMIT_NOFILE: _MAX_FILES,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}
_CPUS = os.cpu_count() or 1
_SHORTEST_LOOK = 0.02
_LONGEST_LOOK = 0.1
_MIB = 1 << 20
_PACKET = 1 << 16


@dataclass(frozen=True, slots=True)
class Order:
    """What the worker asks of a zygote: start one program under these limits."""

    serial: int
    role: str
    cpu_seconds: float
    wall_seconds: float
    memory_mb: int
    address_space_mb: int
    processes: int
    disk_mb: int


@dataclass(slots=True)
class Watch:
    """What was seen of a running program and its children."""

    started: float
    reason: str = ""
    """Why it was ended: cpu, wall, memory, processes, or asked; empty when it ended by itself."""
    crowded: bool = False
    status: int | None = None
    peak_kb: int = 0
    cpu: float = 0.0
    """CPU seconds by the last look: a process whose parent ignores its end leaves no trace in what is reaped."""
    seen: dict[str, int] = field(default_factory=dict)
    """CPU ticks of every process of the program, by the last look at it."""
    reaped_cpu: float = field(default_factory=lambda: _reaped_cpu())


def main(control_fd: int) -> None:
    """Enter the jail the worker describes, say how that went, and serve until the worker goes away."""
    control = socket.socket(fileno=control_fd)
    shape = jail.Shape(**json.loads(control.recv(_PACKET)))
    try:
        zygote = Zygote(control, shape)
        zygote.enter()
    except OSError as error:
        control.send(_pack({"failed": str(error)}))
        return
    control.send(_pack({"ready": True}))
    zygote.serve()


class Zygote:
    def __init__(self, control: socket.socket, shape: jail.Shape) -> None:
        self.control = control
        self.shape = shape
        self.namespaces = shape.level != "process"
        self.orphaned = False
        """The worker is gone: end what runs and leave."""

    def enter(self) -> None:
        solution.warm_up()
        if self.namespaces:
            jail.enter_namespaces(self.shape, self._ask_for_maps)
        else:
            landlock.check()
        jail.give_up_rights(self.shape)
        self.scratch = Scratch(self.shape.scratch)
        self._clear_surroundings()
        self.trouble, self.tell_trouble = os.pipe()
        os.set_blocking(self.trouble, False)
        self.base_kb = _status_kb("VmSize")
        gc.collect()
        gc.freeze()

    def _ask_for_maps(self) -> None:
        self.control.send(_pack({"maps": True}))
        answer = json.loads(self.control.recv(_PACKET))
        if answer["maps"] != "written":
            raise OSError(1, f"writing the user map: {answer['maps']}")

    def _clear_surroundings(self) -> None:
        os.environ.clear()
        home = self.shape.scratch
        os.environ.update(HOME=home, TMPDIR=home, PATH=f"{sys.base_prefix}/bin", LANG="C.UTF-8")
        sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix)]
        null = os.open("/dev/null", os.O_RDWR)
        while null < _RESERVED - 1:
            null = os.dup(null)
        os.chdir(home)
        os.umask(0o022)
        for kind, value in _FIXED_LIMITS.items():
            _cap(kind, value)

    def serve(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.control, _PACKET, 8)
            if not data:
                os._exit(0)
            message = json.loads(data)
            if "run" not in message:
                continue  # an order to end a program that had already ended
            order = Order(**message["run"])
            watch = Watch(time.monotonic())
            child = kernel.fork()
            if child == 0:
                self._become(order, fds)
            for fd in fds:
                os.close(fd)
            self._attend(child, order, watch)
            if self.orphaned:
                os._exit(0)
            self._report(order, watch)

    def _attend(self, child: int, order: Order, watch: Watch) -> None:
        """Wait for the program's end, ending it where it goes over a limit; then end and reap all it left."""
        pidfd = os.pidfd_open(child)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        pause = min(order.cpu_seconds / _CPUS, order.wall_seconds, _LONGEST_LOOK / 2)
        while True:
            ready = dict(poll.poll(pause * 1000))
            if pidfd in ready:
                break
            if self.control.fileno() in ready and self._told_to_end(order):
                watch.reason = "asked"
                break
            if self.orphaned:
                break
            pause = self._look(child, order, watch)
            if watch.reason:
                break
        os.close(pidfd)
        self._end_all(child, watch)

    def _told_to_end(self, order: Order) -> bool:
        data = self.control.recv(_PACKET)
        self.orphaned = not data
        return bool(data) and json.loads(data).get("end") == order.serial

    def _look(self, child: int, order: Order, watch: Watch) -> float:
        """Compare what the program has used with its limits; seconds until the next look."""
        wall = time.monotonic() - watch.started
        cpu, threads, memory_mb = self._usage(watch)
        cpu = max(cpu, _cpu_clock(child)) + _reaped_cpu() - watch.reaped_cpu
        watch.cpu = cpu = max(cpu, sum(watch.seen.values()) / _TICKS)
        watch.crowded = watch.crowded or threads >= order.processes
        if cpu > order.cpu_seconds:
            watch.reason = "cpu"
        elif threads > order.processes:
            watch.reason = "processes"
        elif wall > order.wall_seconds * MOST_WALL or wall - _queued(child) > order.wall_seconds:
            watch.reason = "wall"
        elif memory_mb > order.memory_mb:
            watch.reason = "memory"
        rest = min((order.cpu_seconds - cpu) / _CPUS, order.wall_seconds - wall, _LONGEST_LOOK)
        return max(rest, _SHORTEST_LOOK)

    def _usage(self, watch: Watch) -> tuple[float, int, float]:
        """CPU seconds, threads and memory (MiB) of all live processes of the program."""
        ticks, threads, memory_kb = 0, 0, 0
        own = os.getpid()
        for name in os.listdir("/proc") if self.namespaces else _children(own):
            if not name.isdigit() or int(name) == own:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # As bytes: a process names itself as it likes.
                fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
                ticks += sum(int(f) for f in fields[11:15])
                watch.seen[f"{name} {int(fields[19])}"] = int(fields[11]) + int(fields[12])
                threads += int(fields[17])
                if self.shape.level != "full":  # where a cgroup counts
                    memory_kb += _memory_kb(name)
        return ticks / _TICKS, threads, memory_kb / 1024

    def _end_all(self, child: int, watch: Watch) -> None:
        """Kill until nothing is left to wait for: as PID 1 this reaches every process of the jail."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1 if self.namespaces else child, signal.SIGKILL)
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                return
            watch.peak_kb = max(watch.peak_kb, usage.ru_maxrss)
            if pid == child:
                watch.status = status

    def _report(self, order: Order, watch: Watch) -> None:
        wall = time.monotonic() - watch.started
        report = {
            "serial": order.serial,
            "status": watch.status,
            "reason": watch.reason,
            "crowded": watch.crowded,
            "cpu": max(watch.cpu, _reaped_cpu() - watch.reaped_cpu),
            "wall": wall,
            "peak_kb": watch.peak_kb,
            "trouble": self._trouble(),
            "clean": self.scratch.clean() and not self._network_remembers(),
        }
        self.control.send(_pack(report))

    def _trouble(self) -> str:
        """Why the fork could not become the program, in its own words; empty where it could."""
        try:
            return os.read(self.trouble, _PACKET).decode("utf-8", "replace")[:300]
        except BlockingIOError:
            return ""

    def _network_remembers(self) -> bool:
        """Whether closed connections still hold a port of the jail's loopback, where the next program might want it."""
        if not self.namespaces:
            return False
        try:
            text = Path("/proc/self/net/sockstat").read_text()
        except OSError:
            return False
        words = text.partition("TCP:")[2].split("\n")[0].split()
        counts = dict(zip(words[::2], words[1::2], strict=False))
        return any(counts.get(name, "0") != "0" for name in ("orphan", "tw"))

    def _become(self, order: Order, fds: list[int]) -> None:
        """In the fork: take the descriptors and limits of the program, give up the rest, and run it."""
        code = 70
        try:
            for place, fd in enumerate((*fds, self.tell_trouble)):
                os.dup2(fd, place)
            os.closerange(len(fds) + 1, 1 << 20)
            self._limit(order)
            if self.shape.two_users:
                os.setresgid(jail.INSIDE_UID, jail.INSIDE_UID, jail.INSIDE_UID)
                os.setresuid(jail.INSIDE_UID, jail.INSIDE_UID, jail.INSIDE_UID)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            if not self.namespaces:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
                seccomp.install(seccomp.lone_process_filter(os.getpid()))
                landlock.enter(self.shape.scratch)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            random.seed()
        except Exception as error:  # the jail's own fault, whatever it is: the worker must be told so
            os.write(len(fds), repr(error).encode()[:_PACKET])
            os._exit(code)
        os.close(len(fds))  # from here on a stranger runs, whose word on the jail counts for nothing
        try:
            code = judge.main() if order.role == "judge" else solution.main()
        finally:
            os._exit(code)

    def _limit(self, order: Order) -> None:
        cpu = int(order.cpu_seconds) + 2
        _cap(resource.RLIMIT_CPU, cpu)
        _cap(resource.RLIMIT_AS, self.base_kb * 1024 + order.address_space_mb * _MIB)
        _cap(resource.RLIMIT_FSIZE, order.disk_mb * _MIB)
        if self.namespaces:
            # one user for keeper and program: the keeper's own process counts too
            _cap(resource.RLIMIT_NPROC, order.processes + (0 if self.shape.two_users else 1))


def _cap(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _pack(message: dict) -> bytes:
    return json.dumps(message).encode()


def _reaped_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _cpu_clock(pid: int) -> float:
    """CPU seconds of a child that may hide its /proc entry: the kernel's clock id of another process."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _queued(pid: int) -> float:
    """Seconds a process was ready to run and waited for a CPU: on a busy machine it is not the one that dawdles."""
    try:
        return int(Path("/proc", str(pid), "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _memory_kb(name: str) -> int:
    """Anonymous and shared memory of a process, each page divided among those that have it (files are not counted)."""
    found = 0
    for line in Path("/proc", name, "smaps_rollup").read_bytes().splitlines():
        if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
            found += int(line.split()[1])
    return found


def _status_kb(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


_TICKS = os.sysconf("SC_CLK_TCK")
