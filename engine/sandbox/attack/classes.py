"""The 58 classes of hostile programs, by number: what each is after, and which of four categories it is in."""

from __future__ import annotations

_CATEGORIES = {
    "resource": range(1, 22),
    "outliving": range(22, 31),
    "escape": range(31, 51),
    "cheating": range(51, 59),
}

CATEGORIES = tuple(_CATEGORIES)
"""Using up the machine, staying after the verdict, getting out of the box, and passing without being right."""

CLASSES = {
    1: "fork bombs",
    2: "memory bombs",
    3: "memory spread over many children",
    4: "filling memory through mappings, files in memory and /dev/shm",
    5: "filling the disk",
    6: "sparse files",
    7: "using up inodes",
    8: "using up descriptors",
    9: "floods of output",
    10: "output that is no text, or one endless line",
    11: "busy loops",
    12: "waiting for ever",
    13: "spinning with every signal ignored",
    14: "many threads",
    15: "one long call that never lets go of the interpreter",
    16: "bombs that go off in the compiler",
    17: "core dumps",
    18: "recursion without end",
    19: "priority, schedulers and CPUs",
    20: "using up watches, timers and events",
    21: "bombs in the value that is returned",
    22: "daemons",
    23: "writing after the verdict",
    24: "exit hooks and finalisers",
    25: "children that hold a pipe open",
    26: "System V and POSIX objects that stay",
    27: "abstract sockets that stay",
    28: "files for the next program",
    29: "modules planted for the next program",
    30: "cron, at, systemd and D-Bus",
    31: "/proc of others and of the kernel",
    32: "tracing other processes and reading their memory",
    33: "signals to others",
    34: "typing into the terminal",
    35: "links for whoever collects the files",
    36: "names that lead out of the folder",
    37: "inherited descriptors",
    38: "secrets in the environment",
    39: "homes, keys, caches and data sets",
    40: "mount, pivot_root and chroot",
    41: "new namespaces",
    42: "setuid programs",
    43: "device nodes",
    44: "GPUs",
    45: "control groups",
    46: "raw system calls past every patched name",
    47: "kernel interfaces no program has business with",
    48: "other system call tables",
    49: "the network",
    50: "sockets of services on this machine",
    51: "values that equal everything",
    52: "looking for the answer in frames, heap and files",
    53: "patched builtins, test frameworks and import hooks",
    54: "leaving before the test",
    55: "printing what the judge would say",
    56: "recognising the test or its harness",
    57: "lying clocks and work done elsewhere",
    58: "sources made to confuse whoever reads them",
}


def category_of(number: int) -> str:
    """The category of class `number`."""
    return next(name for name, numbers in _CATEGORIES.items() if number in numbers)
