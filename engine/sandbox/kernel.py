"""The few Linux calls Python has no name for, through ctypes; each raises OSError naming what was refused."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_NET_ADMIN = 12
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
_CAP_VERSION_3 = 0x20080522
_LAST_CAP = 63

_libc = ctypes.CDLL(None, use_errno=True)
_libc_keeping_gil = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def fork() -> int:
    """fork without the interpreter's own hooks, which touch (and so copy) some hundred pages in the child.

    Only for a process with one thread. The child must seed `random` itself.
    """
    return _check(_libc_keeping_gil.fork(), "fork")


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero)
    _check(result, f"prctl({option})")


def set_dumpable() -> None:
    """Let this process see its own /proc; bare, for the fork's hot path."""
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def give_back_memory() -> None:
    """Let the kernel have what was freed: the C library keeps blocks of a size it has once seen freed."""
    _libc.malloc_trim(ctypes.c_size_t(0))


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def enter(namespace: int, kind: int) -> None:
    """Join a namespace by its descriptor."""
    _check(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = (
        source.encode(),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(_libc.mount(*arguments), f"mount {kind or 'bind'} on {target}")


def protect(start: int, size: int, rights: int) -> None:
    """Change what may be done with a range of this process's memory."""
    _check(_libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.c_int(rights)), "mprotect")


def detach(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def pivot_root_here() -> None:
    """Make the working directory the root, the old root stacked under it (to be detached next)."""
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    dot = ctypes.c_char_p(b".")
    syscall(number, dot, dot, what="pivot_root")


def syscall(number: int, *arguments: object, what: str) -> int:
    """A raw call; `arguments` are ctypes values or plain ints."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *values), what)


def limit_capabilities(kept: tuple[int, ...]) -> None:
    """Keep only the capabilities `kept` in this process, none of them across an exec."""
    for capability in range(_LAST_CAP + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        pass  # kernels before 4.3 have no ambient set, so there is nothing to clear
    _set_capabilities(sum(1 << c for c in kept))


def drop_all_capabilities() -> None:
    """Give up every capability this process holds now; with no_new_privs nothing brings one back."""
    _set_capabilities(0)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")
