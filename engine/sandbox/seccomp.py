"""Which system calls a jailed program may not make: a deny list assembled by hand into a BPF filter.

A deny list, since the programs of interest use the whole of Python's standard library; what it denies is every call
that reaches beyond the jail or into kernel surface a Python program has no business with. Calls newer than the list
get ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Iterable

from .kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_SECCOMP, prctl

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_NEWEST_KNOWN = 452
_X32_BIT = 0x40000000
_NAMESPACE_FLAGS = 0x7E020080
_CLONE_THREAD = 0x00010000
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_FAMILIES = (1, 2, 10)  # unix, inet, inet6: what is left of the network is inside the jail

_STREAM_TYPES = (1, 1 | 0x800, 1 | 0x80000, 1 | 0x80800)  # with SOCK_NONBLOCK, SOCK_CLOEXEC

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# (x86_64, aarch64); None where the architecture has no such call
_DENIED = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, None),
    "query_module": (178, None), "get_kernel_syms": (177, None),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "nfsservctl": (180, 42), "uselib": (134, None),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "vhangup": (153, 58), "syslog": (103, 116), "personality": (135, 92),
    "_sysctl": (156, None), "vserver": (236, None), "lookup_dcookie": (212, 18),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "get_mempolicy": (239, 236),
    "set_mempolicy_home_node": (450, 450), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "memfd_secret": (447, 447),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip

# Denied besides where there is no namespace to contain them: new processes, sockets, and every call that changes by
# path what landlock does not guard (modes, owners, times), or watches one.
_DENIED_WITHOUT_NAMESPACES = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "inotify_add_watch": (254, 27),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None),
    "fchownat": (260, 54), "fchown": (93, 55), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None),
}  # fmt: skip

# (x86_64, aarch64), and which argument is a new file's mode
_MODES = (((90, None), 1), ((91, 52), 1), ((268, 53), 2), ((452, 452), 2), ((85, None), 1))
"""chmod, fchmod, fchmodat, fchmodat2, creat."""
_OPENS = (((2, None), 1), ((257, 56), 2))
"""open, openat: the argument with the flags; the mode follows."""
_OPENAT2, _UMASK, _MAKES_A_FILE = (437, 437), (95, 166), 0o20000100  # O_CREAT, and O_TMPFILE's own bit

_MEMFD_CREATE, _PRCTL = (319, 279), (157, 167)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_SOCKET, _SOCKETPAIR, _IOCTL, _PRLIMIT, _AFFINITY = (41, 198), (53, 199), (16, 29), (302, 261), (203, 122)
_FCNTL, _OWNERS = (72, 25), (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_OWNERS_BY_IOCTL = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
_KILLS = ((62, 129), (200, 130), (234, 131))  # kill, tkill, tgkill

_BY_ARGUMENT = {"clone": _CLONE, "clone3": _CLONE3, "prlimit64": _PRLIMIT, "memfd_create": _MEMFD_CREATE}

Instructions = list[tuple[int, int, int, int]]


def _deny(code: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, 0x00050000 | code


def _load_argument(index: int) -> tuple[int, int, int, int]:
    # the low half of a 64-bit argument: both architectures here are little endian
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index


def _on(number: int | None, body: Instructions) -> Instructions:
    """`body`, which must return on every path, for one system call."""
    return [] if number is None else [(_EQUAL, 0, len(body), number), *body]


def _only(argument: int, values: Iterable[int], code: int) -> Instructions:
    """Allow the call when the argument is one of `values`, else refuse it with `code`."""
    body = [_load_argument(argument)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, _deny(code)]


def _never(argument: int, values: Iterable[int]) -> Instructions:
    body = [_load_argument(argument)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), _deny(errno.EPERM)]
    return [*body, (_RETURN, 0, 0, _ALLOW)]


def _readable(mode: int) -> Instructions:
    """Refuse a mode, in this argument, that lets the owner run a file and not read it."""
    return [
        _load_argument(mode),
        (_ANY_BIT, 0, 2, 0o111),
        (_ANY_BIT, 1, 0, 0o400),
        _deny(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _no_unreadable_programs(number: Callable[[tuple[int | None, int | None]], int | None]) -> Instructions:
    """Whoever runs a file it may not read hides in /proc, as after PR_SET_DUMPABLE: so there is to be no such file."""
    code: Instructions = []
    for pair, mode in _MODES:
        code += _on(number(pair), _readable(mode))
    for pair, flags in _OPENS:
        made = _readable(flags + 1)
        code += _on(number(pair), [_load_argument(flags), (_ANY_BIT, 0, len(made) - 1, _MAKES_A_FILE), *made])
    code += _on(number(_OPENAT2), [_deny(errno.ENOSYS)])  # its mode is behind a pointer
    kept = [_load_argument(0), (_ANY_BIT, 0, 1, 0o400), _deny(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return code + _on(number(_UMASK), kept)


def _prologue(arch: int) -> Instructions:
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        _deny(errno.EPERM),
        (_AT_LEAST, 0, 1, _NEWEST_KNOWN + 1),
        _deny(errno.ENOSYS),
    ]


def _column() -> tuple[int, Callable[[tuple[int | None, int | None]], int | None]]:
    machine = platform.machine()
    if machine not in _ARCHES:
        raise OSError(
            errno.ENOSYS, f"no system call table for {machine} (there is one for {', '.join(_ARCHES)})"
        )
    place = list(_ARCHES).index(machine)
    return _ARCHES[machine], lambda pair: pair[place]


def number_of(name: str) -> int | None:
    """The number of a system call this room knows by name; None where this machine has no such call."""
    _, number = _column()
    return number({**_DENIED, **_DENIED_WITHOUT_NAMESPACES, **_BY_ARGUMENT}[name])


def jail_filter(*, memory_files: bool) -> bytes:
    """The filter of every jail. `memory_files` only where a cgroup counts their memory: no resource limit does."""
    arch, number = _column()
    code = _prologue(arch)
    if not memory_files:
        code += _on(number(_MEMFD_CREATE), [_deny(errno.EPERM)])
    for pair in _DENIED.values():
        code += _on(number(pair), [_deny(errno.EPERM)])
    code += _on(number(_CLONE3), [_deny(errno.ENOSYS)])
    code += _on(
        number(_CLONE),
        [_load_argument(0), (_ANY_BIT, 0, 1, _NAMESPACE_FLAGS), _deny(errno.EPERM), (_RETURN, 0, 0, _ALLOW)],
    )
    for pair in (_SOCKET, _SOCKETPAIR):
        code += _on(number(pair), _only(0, _FAMILIES, errno.EAFNOSUPPORT))
    code += _on(number(_IOCTL), _never(1, _TERMINAL_INJECTION))
    # Who hides in /proc is not measured; to show itself again is the first thing a program's process does.
    shown = _only(1, (1,), errno.EPERM)
    code += _on(
        number(_PRCTL),
        [
            _load_argument(0),
            (_EQUAL, 0, len(shown), PR_SET_DUMPABLE),
            *shown,
            (_RETURN, 0, 0, _ALLOW),
        ],
    )
    for pair in (_PRLIMIT, _AFFINITY):
        code += _on(number(pair), _only(0, (0,), errno.EPERM))
    code += _no_unreadable_programs(number)
    return _pack([*code, (_RETURN, 0, 0, _ALLOW)])


def lone_process_filter(pid: int) -> bytes:
    """The further filter of process `pid` where no namespaces contain it: no children, sockets or signals to others."""
    arch, number = _column()
    code = _prologue(arch)
    for pair in _DENIED_WITHOUT_NAMESPACES.values():
        code += _on(number(pair), [_deny(errno.EPERM)])
    thread_only = [
        _load_argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), _deny(errno.EPERM),
    ]  # fmt: skip
    code += _on(number(_CLONE), thread_only)
    # a connected pair reaches nobody else; asyncio cannot do without
    code += _on(number(_SOCKETPAIR), _only(1, _STREAM_TYPES, errno.EPERM))
    kill, tkill, tgkill = (number(pair) for pair in _KILLS)
    code += _on(kill, _only(0, (pid,), errno.EPERM))
    code += _on(tgkill, _only(0, (pid,), errno.EPERM))
    code += _on(tkill, [_deny(errno.EPERM)])
    # a descriptor's owner gets any signal its maker chose, also SIGKILL; landlock contains that from version 6 only
    code += _on(number(_FCNTL), _never(1, _OWNERS))
    code += _on(number(_IOCTL), _never(1, _OWNERS_BY_IOCTL))
    code += _on(
        number(_PRCTL), _never(0, (PR_SET_PDEATHSIG, PR_SET_DUMPABLE))
    )  # its keeper ends and measures it
    return _pack([*code, (_RETURN, 0, 0, _ALLOW)])


def _pack(code: Instructions) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(filter_code: bytes) -> None:
    """Put the filter on this thread and all it starts; no_new_privs must be set."""
    program = _SockFprog(len(filter_code) // 8, filter_code)
    try:
        prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program))
    except OSError as error:
        raise OSError(error.errno, f"seccomp filter: {os.strerror(error.errno or 0)}") from None
