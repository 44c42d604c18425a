"""Quick programs that attack the sandbox, each with the verdicts that are right for it."""

# ruff: noqa: E501 (each program is one string, so that the table reads as a list)

from __future__ import annotations

from engine.sandbox import Call, Limits, Program

from .trial import Trial

BRIEF = Limits(cpu_seconds=0.1, wall_seconds=0.3, memory_mb=64, processes=16, output_kb=1)
"""Loops and sleepers cost their limit, so it is short; 1 kB kept means that 128 kB printed is too much."""
FILLING = Limits(cpu_seconds=3.0, wall_seconds=9.0, memory_mb=64, processes=16, output_kb=1)
"""Filling memory or disk takes CPU time of its own, more of it on a busy machine."""

_SLOW = ("cpu_limit", "wall_limit")
_HELD = ("passed", "denied")
_NO = ("wrong", "incomplete", "runtime_error", "output_limit", "memory_limit", "signal", "denied", *_SLOW)
"""For a forgery: anything but passed, and never the sandbox's own fault."""

_SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fork bomb": ("import os\nwhile True: os.fork()", ("process_limit", "denied", *_SLOW)),
    "fork bomb that shrugs": (
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        ("process_limit", *_SLOW),
    ),
    "thread bomb": (
        "from threading import Thread\ndef g():\n  while True: Thread(target=g).start()\ng()",
        (
            "process_limit",
            "memory_limit",
            "output_limit",
            *_SLOW,
        ),  # each thread that cannot start another prints
    ),
    "daemon that outlives": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.closerange(0, 9)\n    time.sleep(1000)\n  os._exit(0)",
        _HELD,
    ),
    "daemon that holds the output": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(1000)",
        _HELD,
    ),
    "orphans that work on": (
        "import os\nfor _ in range(4):\n  if os.fork() == 0:\n    while True: pass",
        ("cpu_limit", *_HELD),
    ),
    "files left behind": (
        "for n in ('x', '/tmp/temper-soak-x', '/dev/shm/temper-soak-x'):\n  open(n, 'w').write('x' * 9999)",
        _HELD,
    ),
    "nested folders": (
        "import os\nfor _ in range(200):\n  os.mkdir('d')\n  os.chdir('d')\nopen('x', 'w').close()",
        ("passed", "cpu_limit"),
    ),
    "folder closed behind": (
        "import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.chmod('d', 0)",
        _HELD,
    ),
    "scratch closed": ("import os\nos.chmod('.', 0)", _HELD),
    "hard links and pipes left": (
        "import os\nos.mkfifo('p')\nopen('x', 'w').close()\nfor i in range(50): os.link('x', str(i))\nos.symlink('/', 'root')",
        _HELD,
    ),
    "output flood": ("import os\nwhile 1: os.write(1, b'x' * 65536)", ("output_limit",)),
    "error flood": ("import os\nwhile 1: os.write(2, b'x' * 65536)", ("output_limit",)),
    "closes every descriptor": ("import os\nos.closerange(0, 256)", ("incomplete", "runtime_error")),
    "opens every descriptor": (
        "import os\nwhile True: os.dup(0)",
        ("runtime_error", "denied"),
    ),
    "sockets kept": (
        "import socket\nkept = [socket.socketpair() for _ in range(40)]\nfor a, _ in kept: a.send(b'x' * 999)",
        _HELD,
    ),
    "leaves early": ("import os\nos._exit(0)", ("incomplete",)),
    "loops": ("while True: pass", ("cpu_limit",)),
    "loops in C": ("10 ** 10 ** 9", ("cpu_limit", "memory_limit")),
    "ignores every signal": (
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile 1: pass",
        ("cpu_limit",),
    ),
    "sleeps": ("import time\ntime.sleep(100)", ("wall_limit",)),
    "stops itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", ("wall_limit",)),
    "kills all": (
        "import os\ntry: os.kill(-1, 9)\nexcept OSError: pass",
        ("signal", *_HELD),
    ),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", ("denied", "runtime_error", "passed")),
    "kills its group": ("import os\nos.killpg(0, 9)", ("signal", "denied")),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", ("signal",)),
    "reads a wrong address": ("import ctypes\nctypes.string_at(8)", ("signal",)),
    "System V objects": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.shmget(0x5041, 4096, 0o1666)\nlibc.msgget(0x5041, 0o1666)\nlibc.semget(0x5041, 1, 0o1666)",
        _HELD,
    ),
    "message queue": (
        "import ctypes\nctypes.CDLL(None).mq_open(b'/temper-soak', 0o102, 0o666, 0)",
        _HELD,
    ),
    "mounts": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mount(b'x', b'/tmp', b'tmpfs', 0, 0)\nlibc.unshare(0x10000000)",
        ("signal", *_HELD),
    ),
}
_FILLERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory bomb": ("x = [bytearray(1 << 20) for _ in range(1 << 20)]", ("memory_limit",)),
    "memory in children": (
        "import os, time\nfor _ in range(4):\n  if os.fork() == 0:\n    x = bytearray(b'x' * (1 << 20)) * 40\n    time.sleep(9)\nos.wait()\nos._exit(1)",
        ("memory_limit", "incomplete", "denied"),
    ),
    "memory files": (
        "import os\nfor i in range(16):\n  f = os.memfd_create(str(i))\n  for _ in range(15): os.write(f, bytes(1 << 20))\nos._exit(1)",
        ("memory_limit", "disk_limit", "denied", "incomplete"),
    ),
    "disk fill": (
        "i = 0\nwhile 1:\n  open(str(i), 'wb').write(bytes(4 << 20))\n  i += 1",
        ("disk_limit", "memory_limit"),
    ),
    "inode fill": ("i = 0\nwhile 1:\n  open(str(i), 'w').close()\n  i += 1", ("disk_limit",)),
}
_FUNCTIONS: dict[str, str] = {
    "always equal": "class A:\n  __eq__ = lambda s, o: True\ndef f(x): return A()",
    "leaves with 0": "import os\ndef f(x): os._exit(0)",
    "exits": "import sys\ndef f(x): sys.exit(0)",
    "becomes another program": "import os, sys\ndef f(x): os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "answers from a fork": "import os\ndef f(x):\n  if os.fork(): os._exit(0)\n  return 0",
    "hangs up": "import os\ndef f(x):\n  os.closerange(0, 256)\n  return 0",
    "garbage frames": "import os\ndef f(x):\n  os.write(3, os.urandom(5000))\n  return 0",
    "endless frame": "import os\ndef f(x):\n  os.write(3, b'\\xff\\xff\\xff\\xffV')\n  return 0",
    "half a frame": "import os\ndef f(x):\n  os.write(3, b'\\0\\0\\xff\\xffV')\n  os._exit(0)",
    "every descriptor": "import os\ndef f(x):\n  for fd in range(256):\n    try: os.write(fd, b'\\0\\0\\0\\1VT')\n    except OSError: pass\n  os._exit(0)",
    "patches the harness": (
        "import sys\nfor n, m in list(sys.modules.items()):\n  if 'sandbox' in n:\n    for k, v in list(vars(m).items()):\n"
        "      if callable(v):\n        try: setattr(m, k, lambda *a, **k: b'T')\n        except Exception: pass\ndef f(x): return 0"
    ),
    "an error without a text": "class E(Exception):\n  def __str__(s): raise SystemExit(0)\ndef f(x): raise E()",
    "nested without end": "def f(x):\n  a = []\n  for _ in range(10 ** 4): a = [a]\n  return a",
    "too large": "def f(x): return bytes(9 << 20)",
    "thread that leaves": "import threading, os\nthreading.Timer(.005, os._exit, (0,)).start()\ndef f(x):\n  while 1: pass",
}
_ONLY_APART = {"always equal"}
"""What deceives a test that stands beside it, as it would under plain Python; a judge apart is told no objects."""
_FORMS: dict[str, dict] = {
    "calls": {"calls": (Call("f(1)", 2),)},
    "test": {"entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2\n"},
    "together": {"test": "assert f(1) == 2\n", "together": True},
}


def trials() -> list[Trial]:
    """Every attack once, a forgery once in each form."""
    found = [Trial(name, Program(source), allowed, BRIEF) for name, (source, allowed) in _SCRIPTS.items()]
    found += [Trial(name, Program(source), allowed, FILLING) for name, (source, allowed) in _FILLERS.items()]
    found += [
        Trial(f"{name}, {form}", Program(source, **judged), _NO, BRIEF)
        for name, source in _FUNCTIONS.items()
        for form, judged in _FORMS.items()
        if form != "together" or name not in _ONLY_APART
    ]
    return found
