"""The first process of a program's own process namespace: a few machine instructions that reap what is left to them.

It only has to be there: the kernel ends a namespace with its first process. A fork of the interpreter would do, and
does where there are no instructions for the machine, but would cost as much as the program.
"""

from __future__ import annotations

import os
import platform
import signal
import struct
from pathlib import Path

from . import kernel

PATH = "/init"
_CODE = {
    # rt_sigaction(SIGCHLD, {SIG_IGN}), so that the kernel reaps; then pause() for ever
    "x86_64": bytes.fromhex(
        "b80d000000bf11000000488d351300000031d241ba080000000f05b8220000000f05ebf7" + "01" + 31 * "00"
    ),
}
_MACHINES = {"x86_64": 62}
_BASE, _HEADERS = 0x400000, 64 + 56


def lay(root: str) -> None:
    """Put the program at PATH below `root`, where this machine is one it can be written for."""
    code = _CODE.get(platform.machine())
    if code is None:
        return
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, _MACHINES[platform.machine()], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    file = Path(root + PATH)
    file.write_bytes(identity + header + segment + code)
    file.chmod(0o555)


def start() -> int:
    """Start it; the caller must have unshared the namespace it is to be the first of."""
    if platform.machine() in _CODE:
        return os.posix_spawn(PATH, ["init"], {})
    child = kernel.fork()
    if child == 0:
        os.closerange(0, 1 << 16)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            signal.pause()
    return child
