"""The warm interpreter inside a jail: one fork per program, watched, ended with all it started, and wiped after.

A zygote never sees a program's text or its tests: the fork reads them itself from a descriptor, so that nothing of one
program is in the memory the next one inherits.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import sys
from pathlib import Path

from . import eager, jail, judge, kernel, landlock, mappings, seccomp, solution
from .scratch import Scratch, collected
from .watch import Order, Watch

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
_LIMITED = (
    *_FIXED_LIMITS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_AS,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NPROC,
)
_MIB = 1 << 20
_PACKET = 1 << 16
_QUIET = re.compile(rb"\nTCP: inuse \d+ orphan 0 tw 0 ")


def main(control_fd: int) -> None:
    """Enter the jail the worker describes, say how that went, and serve until the worker goes away."""
    control = socket.socket(fileno=control_fd)
    shape = jail.Shape.read(control.recv(_PACKET))
    try:
        zygote = Zygote(control, shape)
        zygote.enter()
    except Exception as error:  # also what a preloaded module raises
        control.send(_pack({"failed": str(error) or type(error).__name__}))
        return
    control.send(_pack({"ready": True, "eager_pages": zygote.eager_pages}))
    zygote.serve()


class Zygote:
    def __init__(self, control: socket.socket, shape: jail.Shape) -> None:
        self.control = control
        self.shape = shape
        self.namespaces = shape.level != "process"
        self.rooms: jail.Rooms | None = None
        self.keepers = 0 if shape.fresh or shape.two_users else 1
        """How many of the programs' user's processes are not the program's."""
        self.eager_pages = 0
        """How many pages each fork is given at once; 0 where the kernel does not grant it."""
        self.orphaned = False
        """The worker is gone: end what runs and leave."""

    def enter(self) -> None:
        ring = eager.make_ring() if self.shape.forks_often else -1
        solution.warm_up()
        sys.path += self.shape.shown
        for name in self.shape.preload:
            importlib.import_module(name)
        if len(os.listdir("/proc/self/task")) > 1:
            raise OSError(11, f"preloading {', '.join(self.shape.preload)} started threads")
        if self.namespaces:
            jail.enter_namespaces(self.shape, self._ask_for_maps)
            _follow_packages(self.shape.shown)
            self.rooms = jail.Rooms(self.shape) if self.shape.fresh else None
        else:
            landlock.check()
        self.scratch = Scratch(self.shape.scratch)
        self._clear_surroundings()
        self.trouble, self.tell_trouble = os.pipe()
        os.set_blocking(self.trouble, False)
        self.sockets = -1
        if self.namespaces:
            with contextlib.suppress(OSError):
                self.sockets = os.open("/proc/self/net/sockstat", os.O_RDONLY | os.O_CLOEXEC)
        self.base_kb = _status_kb("VmSize")
        if ring >= 0:
            self._copy_eagerly(ring)
        for kind, value in _FIXED_LIMITS.items():
            _cap(kind, value)
        jail.give_up_rights(self.shape)
        gc.collect()
        gc.freeze()

    def _copy_eagerly(self, ring: int) -> None:
        """Have every fork given at once the pages that a program will write to, and few mappings to copy."""
        order = Order(0, "program", 60.0, 60.0, 1 << 20, 0, 1 << 10, 1 << 10, [])
        null = os.open(os.devnull, os.O_RDWR)

        def be_program(pagemap: int, report: int) -> tuple[int, int]:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)  # as it will be when programs run: filters demand it
            fds = [null, null, null, null, solution.rehearsed("test"), pagemap, report]
            self._prepare(order, fds)
            solution.main()
            return len(fds) - 2, len(fds) - 1

        mappings.join()
        gc.collect()
        gc.freeze()
        first = self.rooms.open() if self.rooms else 0
        pages = eager.written_by(be_program) & eager.present()
        if self.rooms:
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            self.rooms.leave()
            self.rooms.clear()
        self.eager_pages = eager.copy_at_fork(ring, pages)
        os.close(null)

    def _ask_for_maps(self) -> None:
        self.control.send(_pack({"maps": True}))
        answer = json.loads(self.control.recv(_PACKET))
        if answer["maps"] != "written":
            raise OSError(1, f"writing the user map: {answer['maps']}")

    def _clear_surroundings(self) -> None:
        os.environ.clear()
        home = self.shape.scratch
        os.environ.update(HOME=home, TMPDIR=home, PATH=f"{sys.base_prefix}/bin", LANG="C.UTF-8")
        shown = (*self.shape.shown, *map(jail.inside, self.shape.shown))
        sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix) or path in shown]
        null = os.open("/dev/null", os.O_RDWR)
        while null < _RESERVED - 1:
            null = os.dup(null)
        os.chdir(home)
        os.umask(0o022)

    def serve(self) -> None:
        """Run what is ordered until the worker hangs up."""
        while True:
            data, fds, _, _ = socket.recv_fds(self.control, _PACKET, 8)
            if not data:
                os._exit(0)
            message = json.loads(data)
            if "run" not in message:
                continue  # an order to end a program that had already ended
            order = Order(**message["run"])
            try:
                first = self.rooms.open(lend=bool(order.collect)) if self.rooms else 0
            except OSError as error:
                self._refuse(order, f"a program's own namespaces: {error}")
            else:
                self._carry_out(order, fds, first)
            if self.orphaned:
                os._exit(0)

    def _refuse(self, order: Order, trouble: str) -> None:
        """Say why an order cannot be carried out: nothing runs in half a jail, and the worker builds another."""
        self.control.send(_pack({"serial": order.serial, "trouble": trouble}))

    def _carry_out(self, order: Order, fds: list[int], first: int) -> None:
        """Run one program to its end, and report. `first` is the first process of its room, where it has one."""
        child = kernel.fork()
        if child == 0:
            self._become(order, fds)
        if self.rooms:
            self.rooms.leave()
        watch = Watch(
            order, child, first, not self.namespaces, self.shape.level != "full", order.role != "judge"
        )
        for fd in fds:
            os.close(fd)
        self._attend(watch)
        if not self.orphaned:
            self._report(watch)

    def _attend(self, watch: Watch) -> None:
        """Wait for the program's end, ending it where it goes over a limit; then end and reap all it left."""
        pidfd = os.pidfd_open(watch.child)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        pause = watch.first_pause()
        while not (watch.reason or self.orphaned):
            ready = dict(poll.poll(pause * 1000))
            if pidfd in ready:
                break
            if self.control.fileno() in ready:
                self._heed(watch)
                continue
            pause = watch.look()
            if watch.overdue and not (watch.waits or watch.reason):
                self.control.send(_pack({"serial": watch.order.serial, "overdue": True}))
                watch.waits = True
        os.close(pidfd)
        self._end_all(watch)

    def _heed(self, watch: Watch) -> None:
        """Hear the worker: to end the program, or that it has time left."""
        data = self.control.recv(_PACKET)
        self.orphaned = not data
        message = json.loads(data) if data else {}
        if message.get("end") == watch.order.serial:
            watch.reason = message.get("reason", "asked")
        if message.get("go_on") == watch.order.serial:
            watch.excused += message["seconds"]
            watch.waits = False

    def _end_all(self, watch: Watch) -> None:
        """Kill until nothing is left to wait for: as PID 1 this reaches every process of the jail."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1 if self.namespaces else watch.child, signal.SIGKILL)
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                return
            watch.peak_kb = max(watch.peak_kb, usage.ru_maxrss)
            if pid == watch.child:
                watch.status = status

    def _report(self, watch: Watch) -> None:
        report = {**watch.report(), "trouble": self._trouble()}
        with collected(self.shape.scratch, watch.order.collect) as files:
            report["clean"] = self._clear()
            report["collected"] = list(files)
            socket.send_fds(self.control, [_pack(report)], list(files.values()))

    def _clear(self) -> bool:
        """Whether the next program finds nothing of this one; else the jail must be built again."""
        if self.rooms:
            self.rooms.clear()
            return True
        return self.scratch.clean() and not self._network_remembers()

    def _trouble(self) -> str:
        """Why the fork could not become the program, in its own words; empty where it could."""
        try:
            return os.read(self.trouble, _PACKET).decode("utf-8", "replace")[:300]
        except BlockingIOError:
            return ""

    def _network_remembers(self) -> bool:
        """Whether closed connections still hold a port of the jail's loopback, where the next program might want it."""
        if self.sockets < 0:
            return False
        text = os.pread(self.sockets, 4096, 0)
        return not _QUIET.search(text)

    def _become(self, order: Order, fds: list[int]) -> None:
        """In the fork: be the program, to its end."""
        code = 70
        try:
            self._prepare(order, [*fds, self.tell_trouble])
        except Exception as error:  # the jail's own fault, whatever it is: the worker must be told so
            os.write(len(fds), repr(error).encode()[:_PACKET])
            os._exit(code)
        os.close(len(fds))  # from here on a stranger runs, whose word on the jail counts for nothing
        try:
            code = judge.main() if order.role == "judge" else solution.main()
        finally:
            os._exit(code)

    def _prepare(self, order: Order, fds: list[int]) -> None:
        """Take the descriptors, as 0, 1, 2 ..., and the limits of the program, and give up the rest."""
        for place, fd in enumerate(fds):
            os.dup2(fd, place)
        os.closerange(len(fds), 1 << 20)
        os.setsid()  # a signal to its own group must reach nobody else
        self._limit(order)
        if self.rooms:
            self.rooms.move_in()
        else:
            jail.become_runner(self.shape)
        if not self.namespaces:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            seccomp.install(seccomp.lone_process_filter(os.getpid()))
            landlock.enter(self.shape.scratch, self.shape.shown)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        random.seed(int.from_bytes(os.urandom(32)))

    def _limit(self, order: Order) -> None:
        # Only a backstop: the kernel counts by its ticks, which may run ahead of the time that was really used.
        _cap(resource.RLIMIT_CPU, int(1.5 * order.cpu_seconds) + 2)
        if order.address_space_mb:
            _cap(resource.RLIMIT_AS, self.base_kb * 1024 + order.address_space_mb * _MIB)
        _cap(resource.RLIMIT_FSIZE, order.disk_mb * _MIB)
        if self.namespaces:
            _cap(resource.RLIMIT_NPROC, order.processes + self.keepers)


def _follow_packages(shown: tuple[str, ...]) -> None:
    """Let imported packages find the rest of themselves where the jail shows them."""
    moved = {path: jail.inside(path) for path in shown if jail.inside(path) != path}
    sys.path[:] = [moved.get(path, path) for path in sys.path]
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if not moved or not isinstance(places, list):
            continue
        for old, new in moved.items():
            places[:] = [
                new + place[len(old) :] if place.startswith(f"{old}/") else place for place in places
            ]


_HARD = {kind: resource.getrlimit(kind)[1] for kind in _LIMITED}


def _cap(kind: int, value: int) -> None:
    if _HARD[kind] != resource.RLIM_INFINITY:
        value = min(value, _HARD[kind])
    resource.setrlimit(kind, (value, value))


def _pack(message: dict) -> bytes:
    return json.dumps(message).encode()


def _status_kb(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0
