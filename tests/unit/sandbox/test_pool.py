"""The pool: order, back-pressure, replacement, refusal, and what it never imports."""

# ruff: noqa: E501 (programs are single strings)

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import WishError
from engine.sandbox import LEVELS, Call, Limits, Pool, Program, probe, run
from engine.sandbox.commands import sandbox
from engine.sandbox.keeper import folders_of

from .cage import CAGE
from .conftest import QUICK

ROOT = Path(__file__).parents[3]


def test_verdicts_come_in_the_order_of_the_programs(best: Pool) -> None:
    programs = [Program(f"import time\ntime.sleep({(i * 7 % 5) / 50})\nprint({i})") for i in range(30)]
    assert [v.stdout for v in best.run_many(programs, Limits())] == [f"{i}\n" for i in range(30)]


@pytest.mark.parametrize(("size", "most"), [(10, 50), (40 << 20, 10)])
def test_programs_are_read_ahead_but_not_without_bound(best: Pool, size: int, most: int) -> None:
    read = []

    def programs() -> Iterator[Program]:
        for i in range(10_000):
            read.append(i)
            yield Program("x = 1", stdin=b" " * size)

    verdicts = best.run_many(programs(), QUICK)
    next(verdicts)
    assert len(read) < most
    verdicts.close()  # type: ignore[attr-defined]
    assert best.run(Program("x = 1"), QUICK).passed


def test_verdicts_that_wait_for_an_earlier_one_count_too(best: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sandbox.pool._AHEAD_BYTES", 1 << 20)
    read = []

    def programs() -> Iterator[Program]:
        yield Program("import time\ntime.sleep(1)")
        for i in range(10_000):
            read.append(i)
            yield Program("open('x', 'wb').write(bytes(100_000))", collect=("x",))

    verdicts = best.run_many(programs(), QUICK)
    next(verdicts)
    assert 10 <= len(read) < 50  # in a second hundreds would be done
    assert len(next(verdicts).files[0].data) == 100_000
    verdicts.close()  # type: ignore[attr-defined]


def test_two_streams_may_share_a_pool(best: Pool) -> None:
    counts: list[int] = []

    def stream(n: int) -> None:
        counts.append(sum(v.passed for v in best.run_many([Program(f"assert {n} == {n}")] * 20, QUICK)))

    threads = [threading.Thread(target=stream, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20, 20, 20]


def _family(pid: int) -> list[int]:
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *_family(child)]
    return found


def _left_by(pid: int) -> list[Path]:
    groups = [
        p
        for root in Path("/sys/fs/cgroup").glob("*")
        for p in root.rglob(f"temper-sandbox-{pid}-*")
        if p.is_dir()
    ]
    return groups + folders_of(pid)


@pytest.mark.parametrize("ceiling", LEVELS)
def test_a_dead_worker_or_jail_is_replaced_without_losing_a_program(ceiling: str) -> None:
    with Pool(1, ceiling=ceiling) as pool:
        calls = (Call("f(1)", 2),)
        programs = [Program("import time\ntime.sleep(.05)\ndef f(x): return x + 1", calls=calls)] * 12
        names, killed, family = [], 0, []
        for i, verdict in enumerate(pool.run_many(programs, QUICK)):
            names.append(verdict.name)
            worker = pool._processes[0].process.pid
            if i == 2:
                killed, family = worker, _family(worker)
                os.kill(worker, signal.SIGKILL)
            elif i == 6:
                os.kill(_family(worker)[0], signal.SIGKILL)
        assert names == ["passed"] * 12
        assert not _left_by(killed)
        assert family and not [pid for pid in family if Path(f"/proc/{pid}/exe").exists()]


def test_an_unknown_or_impossible_level_is_refused() -> None:
    with pytest.raises(WishError, match="no isolation level"):
        Pool(1, "total")
    with pytest.raises(WishError, match="0 workers"):
        Pool(0)


def test_inside_a_container_that_forbids_namespaces_the_level_falls_and_says_so() -> None:
    script = (
        f"{CAGE}from engine.errors import WishError\nfrom engine.sandbox import Pool, Program\n"
        "try: Pool(1, 'user')\nexcept WishError as e: print(e)\nelse: print('opened')\n"
        "with Pool(1) as pool: print(pool.level, pool.run(Program('print(1)')).name, sorted(pool.problems))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    refusal, fallen = done.stdout.splitlines()
    assert "cannot isolate programs at level full or user" in refusal
    assert "unshare" in refusal and "administrator" in refusal
    assert fallen == "process passed ['full', 'user']"


def test_the_probe_tries_every_level() -> None:
    found = probe()
    assert set(found.levels) == set(LEVELS)
    assert found.level in (*LEVELS, "none")
    assert set(found.needs) == {level for level, problem in found.levels.items() if problem}


def test_one_program_at_a_time() -> None:
    verdict = run(Program("print(input())", stdin=b"hello\n"))
    assert verdict.passed and verdict.stdout == "hello\n"


def test_the_verbs_print_json(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys\nprint(sys.stdin.read())\nsys.exit(4)")
    (tmp_path / "in").write_text("42")
    arguments = ["run", str(tmp_path / "a.py"), "--stdin", str(tmp_path / "in"), "--json"]
    answer = json.loads(CliRunner().invoke(sandbox, arguments, catch_exceptions=False).stdout)
    assert (answer["verdict"], answer["exit_code"], answer["stdout"]) == ("runtime_error", 4, "42\n")
    assert set(answer) >= {"signal", "cpu_seconds", "wall_seconds", "peak_memory_mb", "stderr", "isolation"}
    with pytest.raises(WishError, match="cannot read"):
        CliRunner().invoke(sandbox, ["run", str(tmp_path / "missing.py")], catch_exceptions=False)


def test_the_bench_measures_each_mode_and_judges_rightly() -> None:
    arguments = ["bench", "--workers", "1", "--seconds", "0.2", "--json"]
    found = json.loads(CliRunner().invoke(sandbox, arguments, catch_exceptions=False).stdout)
    ways = [row["way"] for row in found["rows"]]
    assert ways == (["reused", "fresh"] if found["isolation"] != "process" else ["reused"]) + [ways[-1]]
    assert all(row["programs_per_second"] > 0 and row["misjudged"] == 0 for row in found["rows"])
    table = CliRunner().invoke(sandbox, arguments[:-1], catch_exceptions=False).stdout
    assert "programs/s" in table and "reused" in table


def test_the_room_never_imports_what_is_heavy() -> None:
    script = "import sys, engine.sandbox, engine.sandbox.commands\nprint([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
@pytest.mark.skipif(not all(map(shutil.which, ("unshare", "setpriv"))), reason="needs unshare and setpriv")
@pytest.mark.parametrize("level", ["user", "process"])
def test_an_ordinary_user_gets_the_same_verdicts(level: str) -> None:
    script = (
        "import os\nfrom engine.sandbox import Call, Limits, Pool, Program\nassert os.getuid() == 65534\n"
        f"with Pool(1, {level!r}, ceiling={level!r}) as pool:\n"
        "    sources = ['print(1)', 'while 1: pass', 'import os; os._exit(0)', 'open(\"x\", \"w\").write(\"y\")',\n"
        "        'import os; assert os.listdir() == [\"program.py\"]', "
        '\'open("/etc/passwd", "a")\', \'import os; os.mkdir("d"); os.chmod("d", 0)\',\n'
        "        'import os; assert os.listdir() == [\"program.py\"]', 'import os; os.kill(os.getppid(), 9)']\n"
        "    programs = [Program(source) for source in sources]\n"
        "    programs.append(Program('def f(): return 2', calls=(Call('f()', 2),)))\n"
        "    programs.append(Program('def f(): return 2', entry_point='f', test='def check(c): assert c() == 2'))\n"
        "    print(*[v.name for v in pool.run_many(programs, Limits(cpu_seconds=.5))])\n"
    )
    # the interpreter may live where only root may look (/root/.pyenv): show it at /mnt to this test alone
    shell = (
        'mount --bind "$1" /mnt && exec setpriv --reuid 65534 --regid 65534 --clear-groups '
        'env LD_LIBRARY_PATH=/mnt/lib /mnt/bin/python3 -B -c "$2"'
    )
    command = ["unshare", "--mount", "sh", "-c", shell, "sh", sys.base_prefix, script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "Permission denied" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine cannot show the interpreter to another user: {done.stderr.strip()[-200:]}")
    names = done.stdout.split()
    assert names[:6] == ["passed", "cpu_limit", "incomplete", "passed", "passed", "denied"], done
    assert names[6] in ("passed", "denied")
    assert names[7:] == ["passed", "denied" if level == "process" else names[8], "passed", "passed"], done
