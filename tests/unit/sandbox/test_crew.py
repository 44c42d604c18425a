"""The crew: workers hold one program ahead, nobody waits behind a slow one, and a closed pool is really closed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import CancelledError

import pytest

from engine.sandbox import Limits, Pool, Program, Verdict

SLOW = Program("import time\ntime.sleep(1.5)\nprint('slow')")
QUICK = Program("print('quick')")


def test_no_program_waits_behind_a_slow_one_while_a_worker_idles() -> None:
    with Pool(2) as pool:
        # the first worker takes the slow one and a quick one; the second worker is soon done with the rest
        futures = [pool.submit(program) for program in (SLOW, QUICK, QUICK, QUICK)]
        started = time.monotonic()
        quick = [future.result() for future in futures[1:]]
        assert time.monotonic() - started < 1.2
        assert [v.stdout for v in quick] == ["quick\n"] * 3
        assert futures[0].result().stdout == "slow\n"
        # what was run twice is heard once, and nobody is the worse for it
        assert [pool.run(QUICK).stdout for _ in range(6)] == ["quick\n"] * 6


def test_a_program_that_waits_can_be_taken_back() -> None:
    with Pool(1) as pool:
        futures = [pool.submit(SLOW), *(pool.submit(QUICK) for _ in range(5))]
        time.sleep(0.3)
        assert futures[-1].cancel()
        assert [future.result().passed for future in futures[:-1]] == [True] * 5
        with pytest.raises(CancelledError):
            futures[-1].result()


def test_closing_ends_what_runs_and_cancels_what_waits() -> None:
    pool = Pool(1)
    futures = [pool.submit(SLOW) for _ in range(5)]
    time.sleep(0.2)
    pool.close()
    done: list[Verdict] = [f.result() for f in futures if not f.cancelled()]
    assert 1 <= len(done) <= 2 and all(v.passed for v in done)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(QUICK)


def test_large_programs_and_large_answers_pass_each_other() -> None:
    """Both ends write megabytes at a time: neither may wait for the other to read."""
    large = Program(
        f"x = {'y' * (4 << 20)!r}\nimport sys\nfor _ in range(40): sys.stdout.write('z' * (1 << 16))"
    )
    with Pool(1) as pool:
        verdicts = list(pool.run_many([large] * 6, Limits(output_kb=4096)))
    assert [len(v.stdout) for v in verdicts] == [40 << 16] * 6


def test_a_worker_that_cannot_be_started_again_costs_verdicts_not_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with Pool(1) as pool:
        assert pool.run(QUICK).passed
        with monkeypatch.context() as patched:
            patched.setattr("engine.sandbox.process.start_interpreter", refused)
            pool._processes[0].process.kill()
            verdict = pool.run(QUICK)
            assert verdict.name == "infra" and "cannot be started" in verdict.detail
            assert pool.run(QUICK).name == "infra"
        assert pool.run(QUICK).passed


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: there is no other to take")
def test_workers_of_a_pool_do_not_share_a_cpu_for_a_strangers_sake() -> None:
    """Each worker has a CPU of its own, whatever other pools are open, and no other pool's number."""
    with Pool(1) as stranger, Pool(2) as pool, Pool(1) as late:
        places = [
            [os.sched_getaffinity(worker.process.pid) for worker in one._processes]
            for one in (stranger, pool, late)
        ]
    assert all(len(cpus) == 1 for one in places for cpus in one)
    assert places[1][0] != places[1][1], places
    with Pool(2) as first, Pool(2) as second:
        numbers = [[process.place for process in one._processes] for one in (first, second)]
    assert [b - a for a, b in numbers] == [1, 1] and not {*numbers[0]} & {*numbers[1]}, numbers


def test_a_broken_start_leaves_no_descriptor_behind() -> None:
    judged = Program(
        "def f(): return 1", entry_point="f", test="def check(c):\n    for n in [1]: assert c() == n\n"
    )
    with Pool(1) as pool:
        assert pool.run(QUICK).passed and pool.run(judged).passed
        worker = pool._processes[0].process.pid
        before = len(os.listdir(f"/proc/{worker}/fd"))
        for _ in range(4):
            for child in _children(worker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            assert pool.run(QUICK).passed and pool.run(judged).passed
        assert pool._processes[0].process.pid == worker
        assert len(os.listdir(f"/proc/{worker}/fd")) <= before + 1


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
