"""A container that forbids namespaces: the start of a script, which puts itself into one."""

from __future__ import annotations

CAGE = """
import errno
from engine.sandbox import kernel, seccomp
arch, number = seccomp._column()
code = seccomp._prologue(arch)
allow, deny = (seccomp._RETURN, 0, 0, seccomp._ALLOW), seccomp._deny(errno.EPERM)
spaces = [seccomp._load_argument(0), (seccomp._ANY_BIT, 0, 1, seccomp._NAMESPACE_FLAGS), deny, allow]
code += seccomp._on(number(seccomp._CLONE), spaces)
code += seccomp._on(number(seccomp._CLONE3), [seccomp._deny(errno.ENOSYS)])
for name in ("unshare mount umount2 pivot_root setns add_key request_key keyctl bpf perf_event_open userfaultfd "
             "io_uring_setup io_uring_enter io_uring_register").split():
    code += seccomp._on(seccomp.number_of(name), [deny])
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(seccomp._pack([*code, allow]))
"""
"""What Docker's own filter denies, as far as isolation is concerned."""
