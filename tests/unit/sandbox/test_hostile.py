"""What hostile programs of the catalogue cannot show: closed pools, killed supervisors, what the host hides."""

# ruff: noqa: E501 (each program is one string, so that the table reads as a list)

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.sandbox import Call, Limits, Pool, Program
from engine.sandbox.attack import CATALOGUE
from engine.sandbox.attack.traces import family

from .conftest import QUICK

RIGHT = Program(
    "import os, random, math\ndef f(x):\n    assert os.listdir('.') == []\n    return math.floor(x) + 1",
    calls=(Call("f(1)", 2), Call("f(2)", 3)),
)
WRONG = replace(RIGHT, source="def f(x): return x")
SOURCES = {entry.name: entry.source for entry in CATALOGUE}


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


def test_a_closed_pool_leaves_no_process_group_or_folder() -> None:
    before = family()
    with Pool(2) as pool:
        inside = family() - before
        escapees = [
            Program(SOURCES[n]) for n in ("daemon that outlives", "holds the output open", "fork bomb")
        ]
        list(pool.run_many([*escapees, RIGHT] * 2, QUICK))
        inside |= family() - before
    assert inside
    assert family() == before
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
        started = family(process.pid)
        assert len(started) >= 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in started):
        time.sleep(0.1)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


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


def test_a_child_out_of_memory_is_not_held_against_the_next_program(pool: Pool) -> None:
    greedy = (
        "import os\ntry: pid = os.fork()\nexcept OSError: pid = None\nif pid == 0:\n"
        "  x = [bytearray(900 << 20) for _ in range(4)]\n  os._exit(0)\nif pid: os.waitpid(pid, 0)\ndef f(x): return 2"
    )
    pool.run(Program(greedy, calls=(Call("f(1)", 2),)), QUICK)
    assert pool.run(WRONG, QUICK).name == "wrong"
