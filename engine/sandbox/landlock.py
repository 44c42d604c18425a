"""Confining a process to some folders without any namespace: the kernel's landlock rules, through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable

from . import kernel
from .jail import visible_folders

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH = 1
_READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 2, 1 << 3, 1 << 14
_READ = _READ_FILE | _READ_FOLDER
_WRITE = (1 << 1) | _READ | sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12)) | _TRUNCATE
_RIGHTS_BY_VERSION = {
    1: (1 << 13) - 1,
    2: (1 << 14) - 1,
    3: (1 << 15) - 1,
    4: (1 << 15) - 1,
    5: (1 << 16) - 1,
}
_TCP = 3
_SCOPES = 3  # abstract unix sockets and signals
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def version() -> int:
    """The kernel's landlock version. Raises OSError where it has none."""
    null = ctypes.c_void_p()
    return kernel.syscall(_CREATE, null, ctypes.c_size_t(0), _VERSION_FLAG, what="landlock")


def check() -> None:
    """Refuse kernels whose landlock cannot stop truncation of files outside."""
    if version() < 3:
        raise OSError(38, "landlock of this kernel is too old (version 3 or newer is needed)")


def enter(scratch: str, shown: Iterable[str] = ()) -> None:
    """Confine this process: read Python, the system's libraries and `shown`, write in `scratch`, nothing else."""
    newest = version()
    handled = _RIGHTS_BY_VERSION[min(newest, 5)]
    fields = [handled]
    if newest >= 4:
        fields.append(_TCP)
    if newest >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = kernel.syscall(
        _CREATE, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0, what="landlock ruleset"
    )
    for folder in visible_folders(shown):
        _allow(rules, os.path.realpath(folder), _READ)
    _allow(rules, "/etc/ld.so.cache", _READ_FILE)
    for device in _DEVICES:
        _allow(rules, device, _READ_FILE | (1 << 1))
    _allow(rules, scratch, _WRITE & handled)
    kernel.syscall(_RESTRICT, rules, 0, what="landlock restrict")
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights, folder)
            kernel.syscall(
                _ADD, rules, _RULE_PATH, ctypes.c_char_p(rule), 0, what=f"landlock rule for {path}"
            )
        finally:
            os.close(folder)
