"""Outer engines: the same verdicts, the same walls, nothing left behind; refused in words where they are not to be had."""

# ruff: noqa: E501 (programs are single strings)

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.config import Run
from engine.errors import WishError
from engine.sandbox import Call, File, Limits, Pool, Program, probe
from engine.sandbox.commands import sandbox
from engine.sandbox.outer import engines

QUICK = Limits(cpu_seconds=0.8, wall_seconds=3.0, memory_mb=256, processes=24, disk_mb=16)
"""Wider than elsewhere: a user-space kernel is slow."""
RIGHT = Program(
    "import os, random, math\ndef f(x):\n    assert os.listdir('.') == []\n    return math.floor(x) + 1",
    calls=(Call("f(1)", 2), Call("f(2)", 3)),
)


@pytest.fixture(scope="module", params=engines.ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool in each engine; skipped where it is not installed, or cannot run here."""
    opened = _opened(request.param)
    with opened:
        yield opened


def _opened(name: str, workers: int = 1) -> Pool:
    try:
        return Pool(workers, engine=name)
    except WishError as error:
        pytest.skip(error.what)


VERDICTS = {
    "passed": Program("print('hello')"),
    "passed by a judge apart": Program(
        "def f(x): return x + 1", "f", "def check(c):\n    assert c(1) == 2\n    assert c(5) == 6"
    ),
    "passed beside its test": Program("class A: pass", test="assert A() != A()", together=True),
    "passed with stdin and arguments": Program(
        "import sys\nassert (input(), sys.argv[1]) == ('a', 'b')", stdin=b"a\n", arguments=("b",)
    ),
    "passed by values": RIGHT,
    "wrong": Program("def f(x): return x", calls=(Call("f(1)", 2),)),
    "wrong by a judge apart": Program("def f(x): return x", "f", "def check(c):\n    assert c(1) == 2"),
    "compile_error": Program("def f(:"),
    "runtime_error": Program("1 / 0"),
    "runtime_error by its code": Program("raise SystemExit(3)"),
    "cpu_limit": Program("while True: pass"),
    "wall_limit": Program("import time\ntime.sleep(60)"),
    "memory_limit": Program("x = [bytearray(1 << 20) for _ in range(2000)]"),
    "memory_limit in many processes": Program(
        "import os, time\nfor i in range(4):\n  if not os.fork():\n    x = bytearray(b'a') * (120 << 20)\n    time.sleep(60)\ntime.sleep(60)"
    ),
    "output_limit": Program("while True: print('x' * 4096)"),
    "process_limit": Program("import os, time\nwhile True:\n  if not os.fork(): time.sleep(60)"),
    "disk_limit": Program("f = open('x', 'wb')\nfor _ in range(40): f.write(bytes(1 << 20))"),
    "signal": Program("import os\nos.kill(os.getpid(), 11)"),
    "incomplete": Program("import os\nos._exit(0)"),
    "incomplete in a call": Program("import os\ndef f(x): os._exit(0)", calls=(Call("f(1)", 2),)),
    "denied": Program("open('/usr/lib/x', 'w')"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts_are_those_of_the_sandbox(pool: Pool, case: str) -> None:
    # forks and fresh pages cost a user-space kernel CPU time
    slow = case in ("memory_limit in many processes", "process_limit")
    verdict = pool.run(VERDICTS[case], replace(QUICK, cpu_seconds=8.0, wall_seconds=8.0) if slow else QUICK)
    assert (verdict.name, verdict.isolation) == (case.split()[0], pool.level), verdict


HOSTILE = {
    "looks for the network": "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)",
    "asks the host": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "reads a secret": "open('/etc/shadow').read()",
    "reads the home": "import os\nassert os.listdir({home!r})",
    "reads a file of the host": "open({bait!r}).read()",
    "reads the sandbox": "import os\nprint(os.listdir('/opt/temper'))",
    "finds the environment": "import os\nassert 'TEMPER_BAIT' in os.environ or b'TEMPER_BAIT' in open('/proc/1/environ', 'rb').read()",
    "mounts": "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, b'') == 0",
    "becomes root": "import os\nos.setuid(0)",
    "ends the first process": "import os, signal\nos.kill(1, signal.SIGKILL)",
    "writes to the system": "open('/etc/passwd', 'a').write('x')",
    "writes to the library": "import json\nopen(json.__file__, 'a').write('x')",
    "opens the door": "import os\nfor fd in range(5, 256):\n  try: os.fstat(fd)\n  except OSError: continue\n  raise SystemExit\nraise OSError('none open')",
    "opens the first process's door": "import os\nprint(os.open('/proc/1/fd/0', os.O_RDWR))",
    "leaves at once": "import os\nos._exit(0)",
    "leaves by atexit": "import atexit, os\natexit.register(os._exit, 0)",
    "bombs with forks": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "kills all": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "forges frames": "import os\nfor data in (b'\\0\\0\\0\\1VT', b'\\0\\0\\0\\2R{{}}') * 99: os.write(3, data)\nos._exit(0)",
    "closes all": "import os\nos.closerange(0, 256)\nos._exit(0)",
    "leaves a daemon": "import os, time\nif not os.fork():\n  os.setsid()\n  if not os.fork():\n    while True: time.sleep(1)\nos._exit(0)",
    "fills the shared memory": "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "nests folders": "import os\nwhile True:\n  os.mkdir('d')\n  os.chdir('d')",
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_program_gets_nowhere_and_the_next_one_passes(
    pool: Pool, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bait = tmp_path / "bait"
    bait.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = {
            "port": server.getsockname()[1],
            "bait": str(bait),
            "home": os.path.expanduser("~") + "/.ssh",
        }
        verdict = pool.run(Program(HOSTILE[case].format(**places)), QUICK)
        assert verdict.name not in ("passed", "infra"), verdict
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()
    after = pool.run(RIGHT, QUICK)
    assert after.passed, after


def test_files_go_in_and_come_out_and_no_link_leads_out(pool: Pool) -> None:
    source = "import os\nassert open('d/in').read() == 'a'\nopen('out', 'w').write('b' * 300_000)\nos.symlink('/etc/passwd', 'link')"
    verdict = pool.run(
        Program(source, files=(File("d/in", b"a"),), collect=("out", "link", "absent")), Limits()
    )
    assert verdict.passed, verdict
    assert verdict.files == (File("out", b"b" * 300_000),)


def test_long_output_and_large_values_come_whole(pool: Pool) -> None:
    printed = pool.run(
        Program("print('x' * 5_000_000)\nprint(input()[-3:])", stdin=b"y" * 3_000_000 + b"\n"),
        Limits(output_kb=8000),
    )
    assert printed.passed and printed.stdout == "x" * 5_000_000 + "\nyyy\n"
    big = pool.run(
        Program("def f(n): return 'z' * n", calls=(Call("f(2_000_000)", "z" * 2_000_000),)), Limits()
    )
    assert big.passed, big.detail


def test_the_judge_can_ask_often(pool: Pool) -> None:
    test = "def check(c):\n    for i in range(300):\n        x = [i]\n        assert c(x) == i + 1\n        assert x == [i, 0]"
    verdict = pool.run(Program("def f(x):\n  x.append(0)\n  return x[0] + 1", "f", test), Limits())
    assert verdict.passed, verdict


def test_another_language_is_refused(pool: Pool) -> None:
    with pytest.raises(WishError, match="Python only"):
        pool.run(Program("echo", language="bash"))


@pytest.mark.parametrize("name", engines.ENGINES)
def test_nothing_is_left_not_even_by_the_killed(name: str) -> None:
    with _opened(name) as pool:
        worker = pool._processes[0].process.pid
        family = [worker, *_below(worker)]
        assert len(family) > 3
        verdicts = pool.run_many([RIGHT] * 4, QUICK)
        assert next(verdicts).passed
        family += _below(worker)
        os.kill(worker, signal.SIGKILL)
        assert [v.name for v in verdicts] == ["passed"] * 3
        last = pool._processes[0].process.pid
        family += _below(last)
        helper = next(pid for pid in _below(last) if "outer" in _line(pid))
        os.kill(helper, signal.SIGKILL)
        assert pool.run(RIGHT, QUICK).passed
        family += _below(last)
        makers = [pid for pid in {*family, *_below(last)}]
    deadline = time.monotonic() + 20
    while (left := _left(family, makers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _left(family: list[int], makers: list[int]) -> list[object]:
    groups = [
        f"{folder}/{name}"
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if re.match(r"temper-sandbox-(\d+)-", name) and int(name.split("-")[2]) in makers
    ]
    folders = [p for pid in makers for p in Path(tempfile.gettempdir()).glob(f"temper-sandbox-{pid}-*")]
    alive = [(pid, _line(pid)) for pid in family if Path(f"/proc/{pid}/exe").exists()]
    return [*groups, *folders, *alive]


def _below(pid: int) -> list[int]:
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_below(child)]
    return found


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def test_an_engine_that_is_not_there_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WishError, match="no outer engine 'docker': use one of runsc, podman"):
        Pool(1, engine="docker")
    monkeypatch.setattr(engines.shutil, "which", lambda *_, **__: None)
    for name in engines.ENGINES:
        with pytest.raises(WishError, match=f"{name} is not installed.*install") as refused:
            Pool(1, engine=name)
        assert "apt-get install" in refused.value.fix


def test_an_engine_that_does_not_work_is_refused_and_never_replaced(tmp_path: Path) -> None:
    broken = tmp_path / "runsc"
    broken.write_text("#!/bin/sh\necho 'no kernel for you' >&2\nexit 1\n")
    broken.chmod(0o755)
    script = (
        "from engine.errors import WishError\nfrom engine.sandbox import Pool\n"
        "try: Pool(1, engine='runsc')\nexcept WishError as error: print(error)\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "runsc cannot hold a program on this machine" in done.stdout, done
    assert "no kernel for you" in done.stdout


def test_the_probe_and_the_verb_name_the_engines(pool: Pool, tmp_path: Path) -> None:
    found = {engine.name: engine for engine in probe().engines}
    assert set(found) == set(engines.ENGINES)
    assert found[pool.level].version and not found[pool.level].problem
    (tmp_path / "a.py").write_text("print(1)")
    arguments = ["run", str(tmp_path / "a.py"), "--engine", pool.level, "--json"]
    answer = json.loads(CliRunner().invoke(sandbox, arguments, catch_exceptions=False).stdout)
    assert (answer["verdict"], answer["isolation"]) == ("passed", pool.level)


def test_a_run_file_can_ask_for_an_engine() -> None:
    assert (
        Run.model_validate(
            {"sandbox": {"engine": "runsc"}, "model": {"path": "x"}, "output": "y"}
        ).sandbox.engine
        == "runsc"
    )
