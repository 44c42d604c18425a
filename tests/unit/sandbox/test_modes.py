"""Fresh namespaces for each program, and packages imported before them all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import WishError
from engine.sandbox import Call, Limits, Pool, Program, eager

from .conftest import QUICK

ROOT = Path(__file__).parents[3]
NAMESPACES = "import os\nfor n in ('pid', 'mnt', 'net', 'ipc', 'uts', 'user'): print(os.readlink(f'/proc/self/ns/{n}'))"


@pytest.fixture(scope="module", params=["full", "user"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Pool]:
    try:
        opened = Pool(1, request.param, ceiling=request.param, mode="fresh")
    except WishError as error:
        pytest.skip(error.what)
    with opened:
        yield opened


def test_each_program_has_namespaces_of_its_own(fresh: Pool, best: Pool) -> None:
    seen = [fresh.run(Program(NAMESPACES), QUICK) for _ in range(6)]
    assert all(v.passed for v in seen), seen
    for kind in zip(*(v.stdout.split() for v in seen), strict=True):
        assert len(set(kind)) > 1, kind  # numbers may come back once a namespace is gone
    with Pool(1) as one:
        assert len({one.run(Program(NAMESPACES), QUICK).stdout for _ in range(3)}) == 1


def test_nothing_is_left_for_the_next_program(fresh: Pool) -> None:
    leaves = (
        "import os, socket\nopen('left', 'w').write('x')\nos.makedirs('/tmp/d/e')\nopen('/dev/shm/s', 'w')\n"
        "if not os.fork():\n  import time\n  os.setsid()\n  time.sleep(60)\n"
    )
    looks = (
        "import os\nassert sorted(os.listdir('/tmp')) == ['program.py'], os.listdir('/tmp')\n"
        "assert os.getpid() == 2"
    )
    for _ in range(3):
        assert fresh.run(Program(leaves), QUICK).passed
        assert fresh.run(Program(looks), QUICK).passed


def test_the_keeper_cannot_be_reached(fresh: Pool) -> None:
    source = (
        "import os, signal\nfor pid in (0, -1, 1, os.getppid()):\n"
        "  for s in (signal.SIGTERM, signal.SIGKILL):\n"
        "    if not os.fork():\n      try: os.kill(pid, s)\n      except OSError: pass\n      os._exit(0)\n"
        "    os.wait()\n"
        "try: open('/proc/1/mem', 'r+b')\nexcept OSError: pass\nelse: raise SystemExit('reached')\nprint('HELD')"
    )
    for _ in range(3):
        fresh.run(Program(source), QUICK)
        verdict = fresh.run(Program("def f(): return 1", calls=(Call("f()", 1),)), QUICK)
        assert verdict.passed, verdict


def test_files_come_back_from_a_room_that_is_gone(fresh: Pool) -> None:
    program = Program("open('out', 'w').write('kept')\nopen('other', 'w').write('x')", collect=("out",))
    for _ in range(2):
        assert [(f.name, f.data) for f in fresh.run(program, QUICK).files] == [("out", b"kept")]
    assert fresh.run(Program("import os\nassert os.listdir() == ['program.py']"), QUICK).passed


def test_the_dead_whose_parents_are_gone_are_buried(fresh: Pool) -> None:
    """Orphans come to the room's first process; unburied they would use up the process limit."""
    source = (
        "import os\nfor _ in range(200):\n  pid = os.fork()\n  if not pid:\n    if os.fork(): os._exit(0)\n"
        "    os._exit(0)\n  os.waitpid(pid, 0)\nprint('HELD')"
    )
    verdict = fresh.run(Program(source), Limits(cpu_seconds=5, processes=32))
    assert verdict.passed and verdict.stdout == "HELD\n", verdict


def test_a_machine_without_instructions_for_a_first_process_gets_a_fork() -> None:
    script = (
        "import os, signal\nfrom engine.sandbox import init, kernel\ninit._CODE.clear()\n"
        "kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID)\nfirst = init.start()\n"
        "child = os.fork()\nif child == 0:\n"
        "    for _ in range(5):\n"
        "        if os.fork() == 0: os._exit(0 if os.fork() else 0)\n"
        "        os.wait()\n"
        "    os.kill(1, signal.SIGTERM)\n    os._exit(os.getpid())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "assert os.waitpid(first, os.WNOHANG) == (0, 0)\nos.kill(first, signal.SIGKILL)\nos.waitpid(first, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if "unshare" in done.stderr:
        pytest.skip("this kernel grants no user namespace")
    assert (done.stdout, done.returncode) == ("2\n", 0), done


def test_level_process_is_never_fresh() -> None:
    with pytest.raises(WishError, match="no namespaces"):
        Pool(1, "process", ceiling="process", mode="fresh")
    with pytest.raises(WishError, match="no sandbox mode"):
        Pool(1, mode="new")


@pytest.mark.parametrize("mode", ["reused", "fresh"])
@pytest.mark.parametrize("level", ["full", "user", "process"])
def test_numpy_is_there_when_asked_for(level: str, mode: str) -> None:
    if (level, mode) == ("process", "fresh"):
        pytest.skip("level process has nothing to make fresh")
    try:
        opened = Pool(1, level, ceiling=level, mode=mode, preload=("numpy",))
    except WishError as error:
        pytest.skip(error.what)
    with opened as pool:
        limits = Limits(cpu_seconds=3, memory_mb=256)
        right = "import numpy as np\na = np.arange(1e6).reshape(1000, 1000)\nassert (a @ a.T).shape == (1000, 1000)"
        assert pool.run(Program(right), limits).passed
        lazy = "import numpy.polynomial, numpy.fft\nassert numpy.fft.fft([1, 0])[0] == 1"
        assert pool.run(Program(lazy), limits).passed
        greedy = pool.run(Program("import numpy as np\nx = [np.ones(1 << 26) for _ in range(9)]"), limits)
        assert greedy.name == "memory_limit", greedy
        assert pool.run(Program(right), limits).passed


def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    with pytest.raises(WishError, match="no module 'no_such_module'"):
        Pool(1, preload=("no_such_module",))
    with pytest.raises(WishError, match="this"):
        Pool(1, preload=("tkinter.nothing",))


@pytest.mark.skipif(eager.make_ring() < 0, reason="this kernel has no io_uring")
@pytest.mark.parametrize("mode", ["reused", "fresh"])
@pytest.mark.parametrize("level", ["full", "user", "process"])
def test_forks_are_given_the_pages_a_program_writes_to(level: str, mode: str) -> None:
    if (level, mode) == ("process", "fresh"):
        pytest.skip("level process has nothing to make fresh")
    try:
        opened = Pool(1, level, ceiling=level, mode=mode)
    except WishError as error:
        pytest.skip(error.what)
    with opened as pool:
        assert pool.eager_pages > 100
