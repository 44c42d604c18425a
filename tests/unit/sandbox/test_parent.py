"""The process that opens a pool may be gigabytes large: workers are started by exec and carry none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOST_MB = 100
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import psutil
from engine.sandbox import Call, Limits, Pool, Program

ballast = bytearray(b"x") * (int(sys.argv[1]) << 20)

def look():
    me = psutil.Process()
    family = [(p, p.cmdline()) for p in me.children(recursive=True)]
    return {
        "parent": me.memory_info().rss >> 20,
        "resident": [p.memory_info().rss >> 20 for p, _ in family],
        "modules": [words[-2] for _, words in family],
        "same": sum(words == me.cmdline() for _, words in family),
        "largest mapping": max(_largest(p.pid) for p, words in family if words[-2] == "worker"),
    }

def _largest(pid):
    sizes = [line.split()[0].split("-") for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return max(int(end, 16) - int(start, 16) for start, end in sizes) >> 20

programs = [
    Program("def f(x): return x + 1", calls=(Call("f(1)", 2),)),
    Program("def f(x): return x + 1", entry_point="f", test="def check(c): assert c(1) == 2"),
]
with Pool(2) as pool:
    names = [v.name for v in pool.run_many(programs * 10)]
    first = look()
    os.kill(pool._processes[0].process.pid, signal.SIGKILL)  # the next one is started while threads run
    names += [v.name for v in pool.run_many(programs * 10)]
    print(json.dumps({"names": sorted(set(names)), "looks": [first, look()]}))
"""


@pytest.mark.parametrize("ballast_mb", [300, pytest.param(1100, marks=pytest.mark.slow)])
def test_workers_carry_nothing_of_a_large_parent(root: Path, ballast_mb: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ballast_mb)],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["names"] == ["passed"]
    for look in seen["looks"]:
        assert look["parent"] > ballast_mb
        assert look["modules"].count("worker") == 2 and look["modules"].count("zygote") >= 2
        # a fork has its parent's words and, page by page, its parent's memory in what is resident
        assert look["same"] == 0
        assert max(look["resident"]) < MOST_MB, look
        assert look["largest mapping"] < MOST_MB, look
