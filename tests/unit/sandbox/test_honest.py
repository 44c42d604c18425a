"""Programs with nothing to hide, which a jail must not get in the way of."""

# ruff: noqa: E501 (each program is one string, so that the tables read as lists)

from __future__ import annotations

import pytest

from engine.errors import WishError
from engine.sandbox import LEVELS, Limits, Pool, Program

from .conftest import QUICK, Runner

ROOMY = Limits(cpu_seconds=5, wall_seconds=20, memory_mb=512)

ANYWHERE = {
    "threads": "import threading as t\nn = []\nts = [t.Thread(target=n.append, args=(i,)) for i in range(20)]\n[x.start() for x in ts]\n[x.join() for x in ts]\nassert len(n) == 20",
    "thread at the end": "import threading as t, time\nt.Thread(target=lambda: (time.sleep(.05), print('late'))).start()",
    "recursion 9000 deep": "import sys\nsys.setrecursionlimit(10 ** 5)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nassert f(9000) == 9000",
    "temp files": "import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n  open(os.path.join(d, 'x'), 'w').write('y')\n  assert open(os.path.join(d, 'x')).read() == 'y'\nwith tempfile.TemporaryFile() as f: f.write(b'z')",
    "own files": "open('a.txt', 'w').write('ü')\nassert open('a.txt').read() == 'ü'",
    "utf-8": "print('héllo ☃ 漢字')\nassert open(1, 'w', closefd=False).encoding.lower() == 'utf-8'",
    "no newline at the end": "print('x', end='')",
    "5 MB of output": "import sys\nfor _ in range(5000): sys.stdout.write('x' * 1023 + '\\n')",
    "stderr": "import sys\nprint('note', file=sys.stderr)",
    "exit at the end": "import sys\nprint(1)\nsys.exit()",
    "quit": "print(1)\nquit()",
    "main guard": "if __name__ == '__main__': print('main')\nelse: raise SystemExit(9)",
    "dataclasses and typing": "from dataclasses import dataclass\nfrom typing import NamedTuple\n@dataclass\nclass A:\n  x: int\nassert A(1) == A(1)",
    "pickle of its own class": "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(.01); return 3\nassert asyncio.run(f()) == 3",
    "sqlite": "import sqlite3\nc = sqlite3.connect(':memory:')\nassert c.execute('select 1').fetchone() == (1,)",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n  def test(self): self.assertEqual(1, 1)\nunittest.main(exit=False)",
    "zoneinfo": "import datetime, zoneinfo\ntry: zoneinfo.ZoneInfo('Europe/Berlin')\nexcept zoneinfo.ZoneInfoNotFoundError: pass",
    "lazy imports": "import xml.etree.ElementTree, csv, email, http.client, ctypes, ssl, lzma",
    "random differs": "import random, os\nassert random.random() != random.random()\nassert os.urandom(4)",
    "atexit": "import atexit\natexit.register(print, 'bye')",
    "locale": "import locale\nlocale.setlocale(locale.LC_ALL, '')\nassert locale.getpreferredencoding(False).lower() == 'utf-8'\nassert 'é'.upper() == 'É' and sorted('bÄa', key=str.casefold)",
    "zone files": "import os\np = '/usr/share/zoneinfo/UTC'\nif os.path.exists(p): assert open(p, 'rb').read(4) == b'TZif'",
    "5 MB in one line": "print('x' * (5 << 20))",
    "output in small pieces": "import os\nfor _ in range(20000): os.write(1, b'x')",
    "flags and locks of its own descriptors": "import fcntl, os\nf = open('a', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nfcntl.lockf(f, fcntl.LOCK_UN)\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | os.O_NONBLOCK)\nassert fcntl.fcntl(r, fcntl.F_DUPFD_CLOEXEC, 9) >= 9",
    "selectors": "import os, selectors\ns = selectors.DefaultSelector()\nr, w = os.pipe()\ns.register(r, selectors.EVENT_READ)\nos.write(w, b'x')\nassert s.select(1)",
    "a mapped file": "import mmap\nopen('m', 'wb').write(bytes(4096))\nwith open('m', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m: m[0] = 7\nassert open('m', 'rb').read(1) == b'\\x07'",
    "no terminal": "import os, shutil, sys\nassert shutil.get_terminal_size() == (80, 24) and not sys.stdout.isatty()",
    "a raised limit it does not need": "import resource, sys\nsys.setrecursionlimit(10 ** 6)\nresource.setrlimit(resource.RLIMIT_STACK, (resource.getrlimit(resource.RLIMIT_STACK)[0],) * 2)",
    "ends by an error code of 0": "import sys\nsys.exit(0)",
    "prints and reads nothing": "pass",
    "cleans up after itself": "import os, shutil\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nshutil.rmtree('a')\nassert not os.path.exists('a')",
    "a list of 50 MB": "x = list(range(3 * 10 ** 6))\nassert len(x) == 3 * 10 ** 6",
}
WITH_PROCESSES = {
    "multiprocessing": "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n  with m.Pool(2) as p: assert p.map(f, range(9)) == [x * x for x in range(9)]",
    "subprocess": "import subprocess, sys\nassert subprocess.run([sys.executable, '-c', 'print(5)'], capture_output=True).stdout == b'5\\n'",
    "process pool": "from concurrent.futures import ProcessPoolExecutor as P\nwith P(2) as p: assert list(p.map(abs, [-1, 2])) == [1, 2]",
    "shared memory": "from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=64)\nm.buf[0] = 1\nm.close()\nm.unlink()",
    "sockets of its own": "import socket\na, b = socket.socketpair()\na.send(b'x')\nassert b.recv(1) == b'x'",
    "loopback": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nc = socket.create_connection(s.getsockname())",
    "streams by name": "open('/dev/stdout', 'w').write('a')\nopen('/dev/stderr', 'w').write('b')\nopen('/dev/stdin').read()",
    "who am I": "import os, pwd, getpass\nassert pwd.getpwuid(os.getuid()).pw_name == 'runner'",
    "signals of its own": "import os, signal\nn = []\nsignal.signal(signal.SIGUSR1, lambda *a: n.append(1))\nos.kill(os.getpid(), signal.SIGUSR1)\nassert n",
    "alarm": "import signal, time\nclass T(Exception): pass\ndef h(*a): raise T\nsignal.signal(signal.SIGALRM, h)\nsignal.setitimer(signal.ITIMER_REAL, .05)\ntry: time.sleep(5)\nexcept T: pass\nelse: assert 0",
}
STDIN = {
    "input": "assert input() == 'a b'\nassert input() == 'ü'",
    "lines": "import sys\nassert [x.strip() for x in sys.stdin] == ['a b', 'ü']",
    "read": "import sys\nassert sys.stdin.read() == 'a b\\nü\\n'",
    "buffer": "import sys\nassert sys.stdin.buffer.read() == 'a b\\nü\\n'.encode()",
    "readline of the buffer": "import sys\nr = sys.stdin.buffer.readline\nassert r() == b'a b\\n'",
    "open 0": "assert open(0).read() == 'a b\\nü\\n'",
    "os.read": "import os\nassert os.read(0, 99).startswith(b'a b')",
    "fileinput": "import fileinput\nassert len(list(fileinput.input())) == 2",
    "end of file": "import sys\nsys.stdin.read()\ntry: input()\nexcept EOFError: pass\nelse: assert 0",
}


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_right_program_passes_at_every_level(judge: Runner, name: str) -> None:
    verdict = judge(ANYWHERE[name], ROOMY)
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_right_program_with_processes_passes_inside_namespaces(best: Pool, name: str) -> None:
    if best.level == "process":
        pytest.skip("without namespaces programs may start no process")
    verdict = best.run(Program(WITH_PROCESSES[name]), ROOMY)
    assert verdict.passed, verdict


@pytest.mark.parametrize("name", STDIN)
def test_every_way_to_read_stdin_works(best_judge: Runner, name: str) -> None:
    verdict = best_judge(STDIN[name], ROOMY, stdin="a b\nü\n".encode())
    assert verdict.passed, verdict


def test_what_is_printed_late_is_kept(judge: Runner) -> None:
    assert judge(ANYWHERE["thread at the end"], ROOMY).stdout == "late\n"
    assert judge(ANYWHERE["atexit"], ROOMY).stdout == "bye\n"


def test_a_long_output_keeps_its_start_and_a_long_error_its_end(best_judge: Runner) -> None:
    limits = Limits(cpu_seconds=2, output_kb=1)
    verdict = best_judge("import sys\nfor i in range(999):\n  print(i)\n  print(i, file=sys.stderr)", limits)
    assert verdict.passed
    assert verdict.stdout.startswith("0\n1\n") and len(verdict.stdout) == 1024
    assert verdict.stderr.endswith("997\n998\n") and len(verdict.stderr) == 1024


def test_programs_do_not_share_randomness_or_state(best: Pool) -> None:
    source = "import random, builtins\nassert not hasattr(builtins, 'left')\nbuiltins.left = 1\nprint(random.random())"
    verdicts = list(best.run_many([Program(source)] * 6, QUICK))
    assert all(v.passed for v in verdicts)
    assert len({v.stdout for v in verdicts}) == 6


def test_numpy_works_under_the_memory_limit() -> None:
    """Arrays count as any other memory: those that fit are no trouble, the one too many is named."""
    head = "import numpy as np\na = np.ones(25_000_000)\nassert a.sum() == 25e6\n"
    product = "b = np.random.default_rng(0).random((200, 200))\nassert np.allclose(b @ np.linalg.inv(b), np.eye(200))\n"
    more = "c = [np.ones(25_000_000) for _ in range(3)]\n"
    for level in LEVELS:
        try:
            opened = Pool(1, level, ceiling=level, preload=("numpy",))
        except WishError as error:
            assert level != "process", error.what
            continue
        with opened as pool:
            assert pool.run(Program(head + product), ROOMY).passed
            assert pool.run(Program(head + more), ROOMY).name == "memory_limit"
