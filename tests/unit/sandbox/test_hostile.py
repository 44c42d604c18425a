"""Programs that attack the verdict, the host or the next program; a right program must pass right after each."""

# ruff: noqa: E501 (each program is one string, so that the table reads as a list)

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from engine.sandbox import Call, Limits, Pool, Program

from .conftest import QUICK

RIGHT = Program(
    "import os, random, math\ndef f(x):\n    assert os.listdir('.') == []\n    return math.floor(x) + 1",
    calls=(Call("f(1)", 2), Call("f(2)", 3)),
)
WRONG = replace(RIGHT, source="def f(x): return x")

FORGERIES = {
    "always equal": "class A:\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = None\ndef f(x): return A()",
    "int subclass": "class I(int):\n  __eq__ = lambda s, o: True\ndef f(x): return I(0)",
    "list subclass": "class L(list):\n  __eq__ = lambda s, o: True\ndef f(x): return L()",
    "hidden inside a list": "class A:\n  __eq__ = lambda s, o: True\ndef f(x): return [A()]",
    "type that lies": "class A:\n  __class__ = int\n  __eq__ = lambda s, o: True\ndef f(x): return A()",
    "leaves with 0": "import os\ndef f(x): os._exit(0)",
    "leaves while loading": "import os\nos._exit(0)",
    "exits": "import sys\ndef f(x): sys.exit(0)",
    "exits while loading": "raise SystemExit(0)",
    "prints passed": "def f(x):\n  print('passed')\n  print('{\"verdict\": \"passed\"}')",
    "walks frames": (
        "import sys\ndef f(x):\n  g = sys._getframe()\n  while g:\n    for v in list(g.f_locals.values()):\n"
        "      if isinstance(v, list): v.append('passed')\n      if isinstance(v, dict): v.update(verdict='passed')\n"
        "    g = g.f_back"
    ),
    "walks the heap for what is expected": (
        "import gc\ndef f(x):\n  for o in gc.get_objects():\n    if type(o) is dict and 'expected' in o: return o['expected']\n"
    ),
    "reads its job again": "import os\ndef f(x):\n  os.lseek(4, 0, 0)\n  return os.read(4, 1 << 20)",
    "patches builtins": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: int\n"
        "builtins.AssertionError = SystemExit\nbuiltins.len = lambda x: 0\ndef f(x): return 0"
    ),
    "patches the harness": (
        "import sys\nfor n, m in list(sys.modules.items()):\n  if 'sandbox' in n:\n    for k, v in list(vars(m).items()):\n"
        "      if callable(v):\n        try: setattr(m, k, lambda *a, **k: b'T')\n        except Exception: pass\ndef f(x): return 0"
    ),
    "writes to every descriptor": (
        "import os\ndef f(x):\n  for fd in range(256):\n    for data in (b'\\0\\0\\0\\1VT', b'\\0\\0\\0\\x0cJl\\0\\0\\0\\2s\\0\\0\\0\\6passed'):\n"
        "      try: os.write(fd, data)\n      except OSError: pass\n  os._exit(0)"
    ),
    "closes every descriptor": "import os\ndef f(x):\n  os.closerange(0, 256)\n  return 0",
    "endless frame": "import os\ndef f(x):\n  os.write(3, b'\\xff\\xff\\xff\\xffV')\n  return 0",
    "garbage frames": "import os\ndef f(x):\n  os.write(3, os.urandom(100000))\n  return 0",
    "atexit and del": (
        "import atexit, os\natexit.register(os._exit, 0)\nclass D:\n  def __del__(s): os._exit(0)\nd = D()\ndef f(x): return 0"
    ),
    "raises what cannot be printed": (
        "class E(Exception):\n  def __str__(s): raise SystemExit(0)\n  __repr__ = __str__\ndef f(x): raise E()"
    ),
    "trace function": "import sys\nsys.settrace(lambda *a: sys.exit(0))\nsys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "answers from a fork": "import os\ndef f(x):\n  if os.fork(): os._exit(0)\n  return 0",
    "becomes another program": "import os, sys\ndef f(x): os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "a thread that leaves": "import threading, os\nthreading.Timer(.01, os._exit, (0,)).start()\ndef f(x):\n  while 1: pass",
    "shared references": "x = []\nfor _ in range(60): x = [x, x]\ndef f(_): return x",
    "nested without end": "def f(x):\n  a = []\n  for _ in range(10 ** 5): a = [a]\n  return a",
    "a cycle": "def f(x):\n  a = []\n  a.append(a)\n  return a",
    "an endless iterator": "import itertools\ndef f(x): return map(str, itertools.count())",
}


@pytest.mark.parametrize("form", ["calls", "test"])
@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_passes(best: Pool, name: str, form: str) -> None:
    judged = (
        {"calls": (Call("f(1)", 2),)}
        if form == "calls"
        else {"entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
    )
    verdict = best.run(Program(FORGERIES[name], **judged), QUICK)  # type: ignore[arg-type]
    assert not verdict.passed and verdict.name != "infra", verdict
    assert [v.name for v in best.run_many([RIGHT, WRONG], QUICK)] == ["passed", "wrong"]


@dataclass(frozen=True)
class Attack:
    """A script whose attack failed if it comes to its end, `HELD`; or a verdict among `allowed`."""

    source: str
    allowed: tuple[str, ...] = ()


def _refused(statement: str, imports: str = "") -> Attack:
    """The statement must raise an OSError (or find nothing)."""
    lines = f"import os, sys, socket, ctypes, signal\n{imports}\ntry:\n  {statement}\n"
    return Attack(lines + "except OSError: print('HELD')\nelse: sys.exit('it worked')")


_SYSCALL = "libc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n  if libc.syscall(*a) < 0: raise OSError(ctypes.get_errno(), '')"

_THREE_CHILDREN = (
    "import os, time, mmap, ctypes\npids = []\nfor _ in range(3):\n  pid = os.fork()\n  if not pid:\n    {}\n"
    "    time.sleep(1.5)\n    os._exit(0)\n  pids.append(pid)\n"
    "if not any([os.waitpid(pid, 0)[1] for pid in pids]): raise SystemExit('all of it was had')\nprint('HELD')"
)

ATTACKS = {
    "CPU time of children nobody waits for": Attack(
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range(6):\n  r, w = os.pipe()\n"
        "  if not os.fork():\n    t = time.process_time()\n    while time.process_time() - t < 1.5: pass\n    os._exit(0)\n"
        "  os.close(w)\n  os.read(r, 1)",
        ("cpu_limit", "denied"),
    ),
    "memory behind a name that is no text": Attack(
        _THREE_CHILDREN.format("ctypes.CDLL(None).prctl(15, b'\\xff\\xfe'); x = bytearray(150 << 20)"),
        ("memory_limit", "denied", "passed"),  # passed: the greedy children were killed
    ),
    "memory that is shared": Attack(
        _THREE_CHILDREN.format("m = mmap.mmap(-1, 150 << 20); m[:] = bytes(150 << 20)"),
        ("memory_limit", "denied", "passed"),  # passed: the greedy children were killed
    ),
    "fork bomb": Attack("import os\nwhile True: os.fork()", ("process_limit", "denied")),
    "fork bomb that shrugs": Attack(
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        ("process_limit", "cpu_limit", "wall_limit"),
    ),
    "thread bomb": Attack(
        "from threading import Thread\ndef g():\n  while True: Thread(target=g).start()\ng()",
        ("process_limit", "cpu_limit", "memory_limit", "wall_limit"),
    ),
    "memory bomb": Attack("x = [bytearray(1 << 20) for _ in range(1 << 20)]", ("memory_limit",)),
    "memory in many children": Attack(
        "import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n    x = bytearray(os.urandom(1 << 20)) * 100\n    time.sleep(9)\ntime.sleep(9)",
        ("memory_limit", "denied"),
    ),
    "memory files": Attack(
        "import os\nfor i in range(64):\n  f = os.memfd_create(str(i))\n  for _ in range(15): os.write(f, bytes(1 << 20))\nos._exit(1)",
        ("memory_limit", "disk_limit", "denied", "incomplete"),
    ),
    "disk fill": Attack(
        "i = 0\nwhile 1:\n  open(str(i), 'wb').write(bytes(4 << 20))\n  i += 1", ("disk_limit", "cpu_limit")
    ),
    "inode fill": Attack(
        "i = 0\nwhile 1:\n  open(str(i), 'w').close()\n  i += 1", ("disk_limit", "cpu_limit")
    ),
    "sparse file": Attack("f = open('x', 'wb')\nf.truncate(1 << 40)", ("disk_limit",)),
    "shared memory fill": Attack(
        "while 1:\n  open('/dev/shm/x', 'ab').write(bytes(1 << 20))", ("disk_limit", "denied")
    ),
    "output flood": Attack("import os\nwhile 1: os.write(1, b'x' * 65536)", ("output_limit",)),
    "error flood": Attack("import os\nwhile 1: os.write(2, b'x' * 65536)", ("output_limit",)),
    "ignores every signal": Attack(
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile 1: pass",
        ("cpu_limit",),
    ),
    "deep recursion in C": Attack(
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(_): return max([0], key=f)\nf(0)",
        ("signal", "memory_limit"),
    ),
    "deep folders": Attack(
        "import os\nfor _ in range(3000):\n  os.mkdir('d')\n  os.chdir('d')",
        ("passed", "disk_limit", "cpu_limit"),
    ),
    "daemon that outlives": Attack(
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    for fd in range(9):\n      try: os.close(fd)\n"
        "      except OSError: pass\n    time.sleep(1000)\n  os._exit(0)\nprint('HELD')",
        ("passed", "denied"),
    ),
    "holds the output open": Attack(
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(1000)\nprint('HELD')",
        ("passed", "denied"),
    ),
    "files left behind": Attack(
        "for n in ('x', '/tmp/x', '/dev/shm/x'):\n  open(n, 'w').write('x')", ("passed", "denied")
    ),
    "folder closed behind": Attack(
        "import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.chmod('d', 0)", ("passed", "denied")
    ),
    "scratch itself closed": Attack("import os\nos.chmod('.', 0)\n", ("passed", "denied")),
    "shadow modules": Attack(
        "for n in ('random', 'math', 'os', 'sitecustomize', 'solution'):\n  open(n + '.py', 'w').write('raise SystemExit')",
        ("passed",),
    ),
    "kills all": _refused("os.kill(-1, 9); signal.pause()"),
    "kills its parent": _refused(
        "os.kill(os.getppid(), 9) if os.getppid() > 1 else os.kill(1, 9); raise OSError"
    ),
    "interrupts its parent": _refused("os.kill(os.getppid(), 2); raise OSError"),
    "stops its parent": _refused("os.kill(os.getppid(), 19); raise OSError"),
    "environment of the first process": _refused("open('/proc/1/environ').read()"),
    "memory of the first process": _refused("open(f'/proc/{os.getppid()}/mem', 'rb').read(1)"),
    "home": _refused("open(os.path.expanduser('~root/.profile')).read()"),
    "passwords": _refused("open('/etc/shadow').read()"),
    "system files": _refused("open(os.__file__, 'a')"),
    "devices": _refused("open('/dev/kmsg'); open('/dev/vda'); open('/dev/mem')"),
    "network": _refused("socket.create_connection(('192.0.2.1', 80), timeout=1)"),
    "names on the network": _refused("socket.getaddrinfo('example.org', 80)"),
    "raw sockets": _refused("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "netlink": _refused("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    "ptrace": _refused("call(101, 16, os.getppid(), 0, 0)", _SYSCALL),
    "reads other memory": _refused("call(310, os.getppid(), 0, 0, 0, 0, 0)", _SYSCALL),
    "limits of its parent": _refused(
        "call(302, os.getppid(), 7, 0, ctypes.byref(ctypes.c_ulong(0)))", _SYSCALL
    ),
    "new user namespace": _refused("call(272, 0x10000000)", _SYSCALL),
    "new namespace by clone": _refused("call(56, 0x10000000 | 17, 0, 0, 0, 0)", _SYSCALL),
    "clone3": _refused("call(435, 0, 0)", _SYSCALL),
    "mount": _refused("call(165, b'x', b'/tmp', b'tmpfs', 0, 0)", _SYSCALL),
    "chroot": _refused("os.chroot('/tmp')"),
    "bpf": _refused("call(321, 0, 0, 0)", _SYSCALL),
    "io_uring": _refused("call(425, 1, 0)", _SYSCALL),
    "keyrings": _refused("call(250, 0, -3, 1)", _SYSCALL),
    "perf": _refused("call(298, 0, 0, -1, -1, 0)", _SYSCALL),
    "userfaultfd": _refused("call(323, 0)", _SYSCALL),
    "shared memory of System V": _refused("call(29, 4242, 4096, 0o1666)", _SYSCALL),
    "message queue": _refused("call(240, b'left', 0o102, 0o666, 0)", _SYSCALL),
    "32-bit numbers": _refused("call(0x40000000 | 39)", _SYSCALL),
    "becomes root": _refused("os.setuid(0) if os.getuid() else os.setuid(12345)"),
    "host name": _refused("socket.sethostname('x')"),
    "a clock": _refused("import time; time.clock_settime(time.CLOCK_REALTIME, 0)"),
    "devices made": _refused("os.mknod('d', 0o20666, os.makedev(1, 1))"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails_and_leaves_nothing(pool: Pool, name: str) -> None:
    attack = ATTACKS[name]
    # filling memory or disk takes CPU time of its own, more of it on a busy machine
    fills = {"memory_limit", "disk_limit"} & set(attack.allowed) and "cpu_limit" not in attack.allowed
    verdict = pool.run(
        Program(attack.source), replace(QUICK, cpu_seconds=4.0, wall_seconds=6.0) if fills else QUICK
    )
    if attack.allowed:
        assert verdict.name in attack.allowed, verdict
    else:
        assert verdict.passed and verdict.stdout == "HELD\n", verdict
    assert [v.name for v in pool.run_many([RIGHT, WRONG], QUICK)] == ["passed", "wrong"]


def test_the_programs_world_holds_no_secret(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    source = "import os\nprint(sorted(os.environ), open('/proc/self/environ').read() if os.path.exists('/proc/self') else '')"
    with Pool(1, pool.level, ceiling=pool.level) as opened:
        verdict = opened.run(Program(source), QUICK)
    assert "HF_TOKEN" not in verdict.stdout and "secret" not in verdict.stdout
    assert verdict.passed or verdict.name == "denied"


def test_the_host_is_out_of_sight(best: Pool) -> None:
    prefix = Path(sys.base_prefix)
    hidden = [
        Path(__file__).resolve(),
        Path(os.environ.get("TEMPER_DATA", "/data")),
        Path("/proc/1/environ"),
        Path("/sys"),
    ]
    hidden += [p for p in Path.home().iterdir() if p not in prefix.parents and p != prefix]
    source = f"import os\nfor p in {[str(p) for p in hidden]!r}: assert not os.access(p, os.R_OK), p\nassert os.getpid() != 1"
    verdict = best.run(Program(source), QUICK)
    assert verdict.passed, verdict


def _children(pid: int) -> set[int]:
    found, todo = set(), [pid]
    while todo:
        try:
            text = "".join(p.read_text() for p in Path(f"/proc/{todo.pop()}/task").glob("*/children"))
        except OSError:
            continue
        new = {int(child) for child in text.split()} - found
        found |= new
        todo += new
    return found


def test_a_closed_pool_leaves_no_process_group_or_folder() -> None:
    before = _children(os.getpid())
    with Pool(2) as pool:
        inside = _children(os.getpid()) - before
        escapees = [
            Program(ATTACKS[n].source) for n in ("daemon that outlives", "holds the output open", "fork bomb")
        ]
        list(pool.run_many([*escapees, RIGHT] * 2, QUICK))
        inside |= _children(os.getpid()) - before
    assert inside
    assert _children(os.getpid()) == before
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]
    assert not [
        p
        for root in Path("/sys/fs/cgroup").glob("*")
        for p in root.rglob("temper-sandbox-*")
        if p.is_dir() and _made_by(p, inside)
    ]


def _made_by(group: Path, pids: set[int]) -> bool:
    return int(group.name.split("-")[2]) in pids


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervisor.py"
    script.write_text(
        "import time\nfrom engine.sandbox import Pool, Program\nwith Pool(1) as pool:\n"
        "    print('ready', flush=True)\n    pool.run(Program('import time\\ntime.sleep(60)'))\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=-1
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        family = _children(process.pid)
        assert len(family) >= 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in family):
        time.sleep(0.1)
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]


def test_ports_are_free_again_for_the_next_program(best: Pool) -> None:
    server = (
        "import socket, threading\ns = socket.socket()\ns.bind(('127.0.0.1', 5555))\ns.listen()\n"
        "c = socket.create_connection(('127.0.0.1', 5555))\na, _ = s.accept()\na.send(b'hi')\nprint(c.recv(2))\na.close()\nc.close()"
    )
    verdicts = list(best.run_many([Program(server)] * 6, Limits(cpu_seconds=2)))
    assert {v.name for v in verdicts} <= {"passed"}, verdicts


def test_abstract_sockets_of_the_host_are_out_of_reach(pool: Pool) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0sandbox-test")
        server.listen()
        source = "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0sandbox-test')"
        assert not pool.run(Program(source), QUICK).passed


@pytest.mark.parametrize("form", ["calls", "test"])
def test_a_program_cannot_put_the_blame_on_the_sandbox(pool: Pool, form: str) -> None:
    source = "import os, struct, time\ndef f(x): return 1\nos.write(3, struct.pack('>Ic', 4, b'B') + b'boom')\ntime.sleep(.2)"
    judged = (
        {"calls": (Call("f(1)", 2),)}
        if form == "calls"
        else {"entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
    )
    assert pool.run(Program(source, **judged), QUICK).name == "wrong"  # type: ignore[arg-type]


def test_a_child_out_of_memory_is_not_held_against_the_next_program(pool: Pool) -> None:
    greedy = (
        "import os\ntry: pid = os.fork()\nexcept OSError: pid = None\nif pid == 0:\n"
        "  x = [bytearray(900 << 20) for _ in range(4)]\n  os._exit(0)\nif pid: os.waitpid(pid, 0)\ndef f(x): return 2"
    )
    pool.run(Program(greedy, calls=(Call("f(1)", 2),)), QUICK)
    assert pool.run(WRONG, QUICK).name == "wrong"
