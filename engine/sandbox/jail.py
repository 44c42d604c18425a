"""A jail of its own namespaces: the process that enters becomes PID 1 of a world with Python, scratch and nothing else.

Order matters: the user namespace comes first (it grants the rights for all else), the read-only tree is
built while the host is still visible, then the root is swapped and every right given back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from . import init, kernel, seccomp

INSIDE_UID = 1000
SCRATCH = "/tmp"
SCRATCH_INODES = 4096
_ELSEWHERE = "/packages"
_SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/shm": SCRATCH,
    "var/tmp": SCRATCH,
}
FILES = {
    "etc/passwd": f"root:x:0:0::/:/bin/false\nrunner:x:{INSIDE_UID}:{INSIDE_UID}::{SCRATCH}:/bin/false\n",
    "etc/group": f"root:x:0:\nrunner:x:{INSIDE_UID}:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_PROC_OPTIONS = ("hidepid=2,subset=pid", "hidepid=2", "")
_MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/run", "/var/tmp", "/tmp", "/home")
_KEPT_CAPABILITIES = (
    kernel.CAP_DAC_OVERRIDE,
    kernel.CAP_FOWNER,
    kernel.CAP_KILL,
    kernel.CAP_SETGID,
    kernel.CAP_SETUID,
    kernel.CAP_SYS_PTRACE,
)
_ROOM_CAPABILITIES = (kernel.CAP_NET_ADMIN, kernel.CAP_SYS_ADMIN)
_SPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What a jail is built with; a program that needs another shape needs another jail."""

    level: str
    disk_mb: int
    two_users: bool = False
    """Whether the caller may map a second user, so that programs run under another one than their keeper."""
    fresh: bool = False
    """Whether each program gets namespaces of its own, below those of the jail."""
    shown: tuple[str, ...] = ()
    """Folders programs may read besides Python's and the system's libraries: packages, toolchains."""
    preload: tuple[str, ...] = ()
    """Modules imported once, before any program."""
    forks_often: bool = False
    """Whether it is worth the start to make forks cheap: where Python programs are run, not commands."""
    executable: str = ""
    """Of the outer engine `level` names, where it names one."""
    scratch: str = SCRATCH
    """Where programs may write; another path only where there is no mount namespace to give them their own /tmp."""

    def pack(self) -> bytes:
        """As bytes for the process that is to build it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, data: bytes) -> Shape:
        """What `pack` wrote."""
        values = json.loads(data)
        return cls(**{**values, "shown": tuple(values["shown"]), "preload": tuple(values["preload"])})


def enter_namespaces(shape: Shape, ask_for_maps: Callable[[], None]) -> None:
    """Make this process PID 1 of new namespaces inside its own tree; the process that called stays behind as a shell.

    `ask_for_maps` must return when the caller's caller has written the user maps (only used with `two_users`).
    Raises OSError naming the step the kernel refused.
    """
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    if shape.two_users:
        ask_for_maps()
    else:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{INSIDE_UID} {outer_uid} 1")
        Path("/proc/self/gid_map").write_text(f"{INSIDE_UID} {outer_gid} 1")
    kernel.unshare(_SPACES)
    with contextlib.suppress(OSError):  # cgroups may be absent; nothing below needs their namespace
        kernel.unshare(kernel.CLONE_NEWCGROUP)
    child = os.fork()
    if child:
        _be_the_shell(child)
    if shape.two_users:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    _build_tree(shape)
    socket.sethostname("sandbox")
    _raise_loopback()


def give_up_rights(shape: Shape) -> None:
    """Drop what building needed and put the filter on; what stays serves only to end programs and wipe scratch.

    A process that makes a room for each program keeps the rights to do so, and goes without the filter, which would
    forbid it. Programs cannot see it: it is in none of their namespaces.
    """
    kept = _KEPT_CAPABILITIES if shape.two_users else ()
    kernel.limit_capabilities((*_KEPT_CAPABILITIES, *_ROOM_CAPABILITIES) if shape.fresh else kept)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    # PID 1 is immune to signals from inside as long as it has no handler for them
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not shape.fresh:
        seccomp.install(seccomp.jail_filter(memory_files=shape.level == "full"))


class Rooms:
    """New namespaces of every kind and a scratch folder for one program after another, made by the jail's keeper.

    The keeper makes most of them for itself and its next forks, since it has done so before: a fork would have to copy
    every page it touches for it. Mounts and the user are left to the program's process, which alone is inside.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.filter_code = seccomp.jail_filter(memory_files=shape.level == "full")
        self.outside = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.lent = False
        """The scratch folder is mounted here, where files can be collected from it when the program is gone."""

    def open(self, *, lend: bool = False) -> int:
        """Make a room; the next fork is in it. Its first process, whose end is the room's."""
        kernel.unshare((_SPACES | kernel.CLONE_NEWCGROUP) & ~kernel.CLONE_NEWNS)
        _raise_loopback()
        self.lent = lend
        if lend:
            _mount_scratch(SCRATCH, self.shape)
        return init.start()

    def leave(self) -> None:
        """What is forked from here on is outside of the room."""
        kernel.enter(self.outside, kernel.CLONE_NEWPID)

    def clear(self) -> None:
        """Let a scratch folder go that was lent; another one has gone with its program."""
        if self.lent:
            kernel.detach(SCRATCH)

    def move_in(self) -> None:
        """In the program's process: a /proc and a user namespace of its own, then no right and the filter on."""
        own = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        kernel.unshare(kernel.CLONE_NEWNS)
        _mount_proc("/proc")
        if not self.lent:
            _mount_scratch(SCRATCH, self.shape)
        os.chdir(SCRATCH)
        become_runner(self.shape)
        kernel.unshare(kernel.CLONE_NEWUSER)
        same = f"{INSIDE_UID} {INSIDE_UID} 1".encode()
        for name, text in (("setgroups", b"deny"), ("uid_map", same), ("gid_map", same)):
            file = os.open(name, os.O_WRONLY, dir_fd=own)
            os.write(file, text)
            os.close(file)
        os.close(own)
        kernel.drop_all_capabilities()
        seccomp.install(self.filter_code)


def become_runner(shape: Shape) -> None:
    """Become the user programs run as, where the keeper is another."""
    if shape.two_users:
        os.setresgid(INSIDE_UID, INSIDE_UID, INSIDE_UID)
        os.setresuid(INSIDE_UID, INSIDE_UID, INSIDE_UID)
    kernel.set_dumpable()  # changing the user took the sight of its own /proc from it


def _be_the_shell(child: int) -> None:
    """Hold no descriptor and no right; die with the jail, and let the jail die with this process."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(0, 1 << 16)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _build_tree(shape: Shape) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    sources = visible_folders(shape.shown)
    root = _mount_point(sources)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=4m")
    for folder in ("proc", "dev", "etc", "var", SCRATCH.lstrip("/")):
        os.mkdir(f"{root}/{folder}", 0o755)
    for path in sources:
        _place(root, path)
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/{name}")
    for name, text in FILES.items():
        Path(root, name).write_text(text)
    with contextlib.suppress(OSError):
        Path(root, "etc/ld.so.cache").write_bytes(Path("/etc/ld.so.cache").read_bytes())
    for name in _DEVICES:
        Path(root, "dev", name).touch()
        kernel.mount(f"/dev/{name}", f"{root}/dev/{name}", None, kernel.MS_BIND)
    if shape.fresh:
        init.lay(root)
    _mount_proc(f"{root}/proc", writable=shape.fresh)
    _mount_scratch(f"{root}{SCRATCH}", shape)
    _swap_root(root)


def _mount_scratch(target: str, shape: Shape) -> None:
    options = f"mode=1777,size={shape.disk_mb}m,nr_inodes={SCRATCH_INODES}"
    kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def visible_folders(shown: Iterable[str] = ()) -> list[str]:
    """What a program may see of the host, at the same paths inside; no folder twice."""
    chosen: list[str] = []
    for path in sorted({*_SYSTEM_FOLDERS, sys.base_prefix, sys.base_exec_prefix, *shown}):
        inside_another = any(path.startswith(other + "/") for other in chosen if not os.path.islink(other))
        if os.path.exists(path) and not inside_another:
            chosen.append(path)
    return chosen


def _mount_point(sources: list[str]) -> str:
    """An existing folder that hides no source when it is mounted over."""
    for place in _MOUNT_POINTS:
        real = os.path.realpath(place)
        covers = any((os.path.realpath(s) + "/").startswith(real + "/") for s in sources)
        if os.path.isdir(real) and not covers:
            return real
    raise OSError(2, f"no folder to build the tree on (tried {', '.join(_MOUNT_POINTS)})")


def inside(path: str) -> str:
    """Where a folder is shown: at its own path, unless a program's scratch folder covers that."""
    hidden = any((path + "/").startswith(covered + "/") for covered in (SCRATCH, "/var/tmp", "/dev/shm"))
    return _ELSEWHERE + path if hidden else path


def _place(root: str, path: str) -> None:
    """Show the host's `path` read-only under `root`; a merged-/usr link such as /lib stays a link."""
    target = root + inside(path)
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(path) and path in _SYSTEM_FOLDERS:
        os.symlink(os.readlink(path), target)
        return
    os.makedirs(target, mode=0o755)
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)
    _make_read_only(target)


def _make_read_only(target: str) -> None:
    """Remount read-only, keeping the flags the host locked on the mount (dropping one is refused)."""
    flags = os.statvfs(target).f_flag
    locked = 0
    for host_flag, mount_flag in (
        (os.ST_NOEXEC, kernel.MS_NOEXEC),
        (os.ST_NOATIME, kernel.MS_NOATIME),
        (os.ST_NODIRATIME, kernel.MS_NODIRATIME),
        (os.ST_RELATIME, kernel.MS_RELATIME),
    ):
        if flags & host_flag:
            locked |= mount_flag
    wanted = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("none", target, None, wanted | locked)


def _mount_proc(target: str, *, writable: bool = False) -> None:
    """Mount the private /proc as narrow as the kernel lets it; an outer container may allow none at all."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    if not writable:
        flags |= kernel.MS_RDONLY
    for options in _PROC_OPTIONS:
        with contextlib.suppress(OSError):
            kernel.mount("proc", target, "proc", flags, options)
            return


def _swap_root(root: str) -> None:
    os.chdir(root)
    kernel.pivot_root_here()
    kernel.detach(".")
    os.chdir("/")
    kernel.mount(
        "none",
        "/",
        None,
        kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV,
    )
    os.chdir(SCRATCH)


def _raise_loopback() -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
