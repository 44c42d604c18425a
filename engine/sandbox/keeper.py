"""One zygote as its worker sees it: started in its jail, given orders, and built again when it is spent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from . import cgroup, jail, scratch
from .case import Case
from .outer.engines import ENGINES
from .verdict import Limits

_ROOM = Path(__file__).resolve().parent
_START_SECONDS = 30.0
_ENGINE_START_SECONDS = 90.0
_END_SECONDS = 5.0
_ENGINE_END_SECONDS = 30.0
_OUTER_USERS = 1_879_048_192
_FOLDER = "program-run"
"""Programs see this name as their folder where they have none of their own: it does not name the harness."""
_OWN_PROCESSES = 4
"""Most of a jail's own: its shell, its keeper, a room's first process where programs have rooms, and one to spare."""
_ZYGOTE_MB = 48
"""Memory of a jail's own interpreter, on top of what the program may use."""

BOOT = """import sys, types
root, module, descriptor = sys.argv[1:4]
for name, path in (("engine", root + "/.."), ("engine.sandbox", root)):
    package = types.ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package
import importlib
importlib.import_module("engine.sandbox." + module).main(int(descriptor))
"""
"""Starts one module of this room without its package's door, which would import what a zygote must not carry."""


def start_interpreter(module: str, descriptor: int, *, keep: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """A fresh interpreter (never a fork of this process) running `main(descriptor)` of a module of this room."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"}
    libraries = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p.startswith(sys.base_prefix)]
    # numeric libraries start threads of their own while they load, and a process with threads must not be forked
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    if libraries:
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
    return subprocess.Popen(
        [python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", BOOT, str(_ROOM), module, str(descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # so that the interpreter's own streams are made for pipes; nothing is ever written
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment,
        pass_fds=(descriptor, *keep),
        start_new_session=True,
    )


def clear_after(worker: int) -> None:
    """Remove what a worker that was killed could not: its groups and its scratch folders."""
    cgroup.remove_of(worker)
    for folder in folders_of(worker):
        _remove(str(folder))


def folders_of(worker: int) -> list[Path]:
    """The scratch folders a worker has made and not removed."""
    return list(Path(tempfile.gettempdir()).glob(f"{_FOLDER}-{worker}-*"))


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        scratch.empty(folder)
        os.rmdir(folder)


class JailError(Exception):
    """The jail could not be built; the message names the step the kernel refused."""


class Keeper:
    """A zygote in its jail, and the means to talk to it."""

    def __init__(self, shape: jail.Shape) -> None:
        self.level = level = shape.level
        self.disk_mb = shape.disk_mb
        self.shown = frozenset(shape.shown)
        self.group: cgroup.Group | None = None
        self.folder: str | None = None
        self.limited: tuple[int, int] | None = None
        self.eager_pages = 0
        try:
            if level == "full":
                self.group = cgroup.create()
            if level == "process" or level in ENGINES:
                self.folder = tempfile.mkdtemp(prefix=f"{_FOLDER}-{os.getpid()}-")
            self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = start_interpreter(
                    "outer.stand_in" if level in ENGINES else "zygote", theirs.fileno()
                )
            self._settle_in(shape)
        except OSError as error:
            self.close()
            raise JailError(str(error)) from None
        except JailError:
            self.close()
            raise
        self.seen = self.group.events() if self.group else cgroup.Events(0, 0)

    def _settle_in(self, shape: jail.Shape) -> None:
        self.control.settimeout(_ENGINE_START_SECONDS if self.level in ENGINES else _START_SECONDS)
        if self.group:
            self.group.add(self.process.pid)
        shape = replace(
            shape, two_users=self.level in ENGINES or (self.level != "process" and os.geteuid() == 0)
        )
        self.control.send((replace(shape, scratch=self.folder) if self.folder else shape).pack())
        while True:
            data = self.control.recv(1 << 16)
            if not data:
                raise JailError("the jail's process ended while it was being built")
            message = json.loads(data)
            if "failed" in message:
                raise JailError(message["failed"])
            if "ready" in message:
                self.eager_pages = message.get("eager_pages", 0)
                self.control.settimeout(None)
                return
            self.control.send(_pack({"maps": self._write_maps()}))

    def _write_maps(self) -> str:
        """Map root to root and the programs' user to one that owns nothing on this machine."""
        outer = _OUTER_USERS + self.process.pid
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{self.process.pid}/{name}").write_text(f"0 0 1\n{jail.INSIDE_UID} {outer} 1\n")
        except OSError as error:
            return str(error)
        return "written"

    def run(self, serial: int, role: str, limits: Limits, fds: list[int], case: Case | None = None) -> None:
        """Order a program to be started on descriptors `fds` (0, 1, 2 ... of the program)."""
        if self.group and self.limited != (limits.memory_mb, limits.processes):
            self.group.limit(limits.memory_mb + _ZYGOTE_MB, limits.processes + _OWN_PROCESSES)
            self.limited = (limits.memory_mb, limits.processes)
        # where a group counts memory, address space is only a backstop; elsewhere it is the limit itself
        space = limits.memory_mb * 3 // 2 + 512 if self.group else limits.memory_mb
        order = {
            "serial": serial,
            "role": role,
            "cpu_seconds": float(limits.cpu_seconds),
            "wall_seconds": float(limits.wall_seconds),
            "memory_mb": limits.memory_mb,
            # other languages' run times reserve addresses by the gigabyte and use few of them
            "address_space_mb": 0 if case and case.command else space,
            "processes": limits.processes,
            "disk_mb": limits.disk_mb,
            "collect": case.collect if case else (),
        }
        socket.send_fds(self.control, [_pack({"run": order})], fds)

    def end(self, serial: int, reason: str = "asked") -> None:
        """Order a running program to be ended; no harm when it has ended already."""
        with contextlib.suppress(OSError):
            self.control.send(_pack({"end": serial, "reason": reason}))

    def excuse(self, serial: int, seconds: float) -> None:
        """Give a program wall time it was kept waiting for."""
        with contextlib.suppress(OSError):
            self.control.send(_pack({"go_on": serial, "seconds": seconds}))

    def events(self) -> cgroup.Events:
        """What the kernel did to this jail since the last time this was asked."""
        if not self.group:
            return cgroup.Events(0, 0)
        before, self.seen = self.seen, self.group.events()
        return cgroup.Events(
            self.seen.oom_kills - before.oom_kills, self.seen.refused_forks - before.refused_forks
        )

    def close(self) -> None:
        """End the jail with all in it; its namespaces, groups and folder are gone when this returns."""
        if hasattr(self, "control"):
            self.control.close()  # the zygote leaves at the end of stream, and the kernel ends what it kept
        if hasattr(self, "process"):
            try:
                self.process.wait(_ENGINE_END_SECONDS if self.level in ENGINES else _END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
        if self.group:
            self.group.close()
        if self.level in ENGINES and hasattr(self, "process"):
            cgroup.remove_of(self.process.pid)  # of its containers, where it was killed
        if self.folder:
            _remove(self.folder)


def _pack(message: dict) -> bytes:
    return json.dumps(message).encode()
