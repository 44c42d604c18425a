"""Fresh namespaces for each program, and packages imported before them all."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from engine.errors import WishError
from engine.sandbox import Call, Limits, Pool, Program

from .conftest import QUICK

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
    looks = "import os\nassert sorted(os.listdir('/tmp')) == ['program.py'], os.listdir('/tmp')\nassert os.getpid() == 2"
    for _ in range(3):
        assert fresh.run(Program(leaves), QUICK).passed
        assert fresh.run(Program(looks), QUICK).passed


def test_the_keeper_cannot_be_reached(fresh: Pool) -> None:
    source = (
        "import os, signal\nfor pid in (0, -1, 1, os.getppid()):\n  for s in (signal.SIGTERM, signal.SIGKILL):\n"
        "    if not os.fork():\n      try: os.kill(pid, s)\n      except OSError: pass\n      os._exit(0)\n    os.wait()\n"
        "try: open('/proc/1/mem', 'r+b')\nexcept OSError: pass\nelse: raise SystemExit('reached')\nprint('HELD')"
    )
    for _ in range(3):
        fresh.run(Program(source), QUICK)
        verdict = fresh.run(Program("def f(): return 1", calls=(Call("f()", 1),)), QUICK)
        assert verdict.passed, verdict


def test_level_process_is_never_fresh() -> None:
    with pytest.raises(WishError, match="no namespaces"):
        Pool(1, "process", ceiling="process", mode="fresh")
    with pytest.raises(WishError, match="no sandbox mode"):
        Pool(1, mode="new")


@pytest.mark.parametrize("mode", ["reused", "fresh"])
@pytest.mark.parametrize("level", ["full", "user", "process"])
def test_numpy_is_there_when_asked_for(level: str, mode: str) -> None:
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("numpy is not installed")
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
