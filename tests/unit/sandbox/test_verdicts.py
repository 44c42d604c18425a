"""Every verdict name for its cause, in each form a program can take, at each level."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import replace

import pytest

from engine.errors import WishError
from engine.sandbox import VERDICTS, Call, Limits, Pool, Program
from engine.sandbox.case import Case
from engine.sandbox.worker import Setup, Worker

from .conftest import QUICK, Runner

FILLING = replace(QUICK, cpu_seconds=4.0, wall_seconds=6.0)
"""Filling memory, disk or a pipe takes CPU time of its own, more of it on a busy machine."""

SCRIPTS = {
    "passed": "print('done')",
    "exits well": ("passed", "import sys\nprint('done')\nsys.exit()"),
    "wrong": "assert 1 == 2",
    "compile_error": "def f(:\n",
    "null byte": ("compile_error", "x = 1\0"),
    "surrogate": ("compile_error", "x = '\ud800'"),
    "too deep to parse": ("compile_error", "x = " + "(" * 500 + ")" * 500),
    "runtime_error": "{}['missing']",
    "exit code": ("runtime_error", "import sys\nsys.exit(3)"),
    "cpu_limit": "while True: pass",
    "wall_limit": "import time\ntime.sleep(100)",
    "memory_limit": "x = bytearray(10 ** 10)",
    "memory in steps": ("memory_limit", "x = []\nwhile True: x.append(bytearray(1 << 20))"),
    "output_limit": "while True: print('x' * 10000)",
    "disk_limit": "with open('big', 'wb') as f:\n  while True: f.write(bytes(1 << 20))",
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "abort": ("signal", "import os\nos.abort()"),
    "incomplete": "import os\nos._exit(0)",
    "denied": "open('/etc/shadow-of-the-host', 'w')",
    "process_limit": (
        "process_limit",
        "from threading import Thread as T\nimport time\nfor _ in range(999): T(target=time.sleep, args=(9,)).start()",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_gets_the_verdict_of_its_end(judge: Runner, name: str) -> None:
    case = SCRIPTS[name]
    expected, source = case if isinstance(case, tuple) else (name, case)
    fills = expected in ("memory_limit", "disk_limit", "output_limit")
    verdict = judge(source, FILLING if fills else QUICK)
    assert verdict.name == expected, verdict
    assert verdict.name in VERDICTS
    assert verdict.passed == (expected == "passed")


def test_a_verdict_carries_what_the_program_printed_used_and_left_with(judge: Runner, pool: Pool) -> None:
    verdict = judge(
        "import sys\nprint('out é')\nprint('err', file=sys.stderr)\nsum(range(10**6))\nsys.exit(7)"
    )
    assert (verdict.stdout, verdict.stderr, verdict.exit_code, verdict.signal) == (
        "out é\n",
        "err\n",
        7,
        None,
    )
    assert 0.001 < verdict.cpu_seconds < 1 and verdict.wall_seconds > 0.001
    assert 4 < verdict.peak_memory_mb < 100
    assert verdict.isolation == pool.level


def test_a_traceback_names_the_program_and_nothing_of_the_sandbox(judge: Runner) -> None:
    verdict = judge("def f():\n    return 1 / 0\nf()")
    assert "return 1 / 0" in verdict.stderr and "program.py" in verdict.stderr
    assert "sandbox" not in verdict.stderr
    assert verdict.detail == "ZeroDivisionError: division by zero"


CALLS = {
    "passed": ("def f(x): return x + 1", ("f(1)", 2)),
    "one after another": ("passed", "def f(x): return x + 1", ("f(1)", 2), ("f(-1)", 0)),
    "statements": ("passed", "def f(x): x.append(1)", ("a = []\nf(a)\na", [1])),
    "floats near": ("passed", "def f(): return 0.1 + 0.2", ("f()", 0.3)),
    "nan and infinity": (
        "passed",
        "f = lambda: [float('nan'), float('inf')]",
        ("f()", [float("nan"), float("inf")]),
    ),
    "order of sets and dicts": ("passed", "f = lambda: {2: {3, 1}, 1: 2}", ("f()", {1: 2, 2: {1, 3}})),
    "wrong": ("def f(x): return x", ("f(1)", 2)),
    "second wrong": ("wrong", "def f(x): return 2", ("f(1)", 2), ("f(2)", 3)),
    "float for int": ("wrong", "def f(): return 1.0", ("f()", 1)),
    "int for bool": ("wrong", "def f(): return 1", ("f()", True)),
    "tuple for list": ("wrong", "def f(): return (1, 2)", ("f()", [1, 2])),
    "generator for list": ("wrong", "def f(): return (x for x in [1])", ("f()", [1])),
    "floats apart": ("wrong", "def f(): return 1.001", ("f()", 1.0)),
    "compile_error": ("def f(:", ("f()", 1)),
    "runtime_error": ("def f(): return {}[0]", ("f()", 1)),
    "no such name": ("runtime_error", "def g(): return 1", ("f()", 1)),
    "failed while loading": ("runtime_error", "assert False\ndef f(): return 1", ("f()", 1)),
    "incomplete": ("import os\ndef f(): os._exit(0)", ("f()", 1)),
    "exit while loading": ("incomplete", "def f(): return 1\nraise SystemExit(0)", ("f()", 1)),
    "exit in a call": ("incomplete", "import sys\ndef f(): sys.exit(0)", ("f()", 1)),
    "cpu_limit": ("def f():\n  while True: pass", ("f()", 1)),
    "C code that holds the interpreter": ("cpu_limit", "def f(): return 10 ** 10 ** 9", ("f()", 1)),
    "memory_limit": ("def f(): return len(' ' * 10 ** 10)", ("f()", 1)),
    "signal": ("import os\ndef f(): os.kill(os.getpid(), 9)", ("f()", 1)),
    "a value too large": ("output_limit", "def f(): return bytes(20 << 20)", ("f()", b"")),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_compared_type_exactly_outside(best_judge: Runner, name: str) -> None:
    case = CALLS[name]
    expected, source, *pairs = (name, *case) if isinstance(case[1], tuple) else case
    verdict = best_judge(source, calls=tuple(Call(*pair) for pair in pairs))
    assert verdict.name == expected, verdict


def test_a_wrong_call_is_named_in_the_detail(judge: Runner) -> None:
    calls = (Call("f(1)", 2), Call("f(20)", 21))
    assert judge("def f(x): return min(x + 1, 9)", calls=calls).detail == "f(20): gave 9, expected 21"


TESTS = {
    "passed": ("def f(x): return x + 1", "assert candidate(1) == 2"),
    "mutates its argument": (
        "passed",
        "def f(x): x.sort()",
        "a = [2, 1]\n    candidate(a)\n    assert a == [1, 2]",
    ),
    "raises what is asked": (
        "passed",
        "def f(x): raise ValueError('no')",
        "try:\n        candidate(1)\n        assert 0\n    except ValueError as e:\n        assert str(e) == 'no'",
    ),
    "a generator is an iterator": (
        "passed",
        "def f(x): yield from x",
        "assert list(candidate([1, 2])) == [1, 2]",
    ),
    "uses a helper": (
        "passed",
        "def g(x): return 2 * x\ndef f(x): return g(x)",
        "assert candidate(2) == g(2)",
    ),
    "uses a module": ("passed", "import math\ndef f(x): return math.pi", "assert candidate(1) == math.pi"),
    "keeps the order of a dict": (
        "passed",
        "def f(x): return {2: 1, 1: 2}",
        "assert list(candidate(1)) == [2, 1]",
    ),
    "wrong": ("def f(x): return x", "assert candidate(1) == 2"),
    "None where a number is due": ("wrong", "def f(x): pass", "assert abs(candidate(1) - 2) < 1"),
    "compile_error": ("def f(x) return x", "assert candidate(1) == 2"),
    "runtime_error": ("def f(x): return x.y", "assert candidate(1) == 2"),
    "no such function": ("runtime_error", "def g(x): return x", "assert candidate(1) == 2"),
    "incomplete": ("import os\ndef f(x): os._exit(0)", "assert candidate(1) == 2"),
    "exit in a call": ("incomplete", "def f(x): raise SystemExit", "assert candidate(1) == 2"),
    "exit hidden from a bare except": (
        "incomplete",
        "def f(x): raise SystemExit",
        "try:\n        candidate(1)\n    except BaseException: pass",
    ),
    "exit while loading": ("incomplete", "exit()\ndef f(x): return 2", "assert candidate(1) == 2"),
    "cpu_limit": ("def f(x):\n  while True: pass", "assert candidate(1) == 2"),
    "wall_limit": ("import time\ndef f(x): time.sleep(99)", "assert candidate(1) == 2"),
    "memory_limit": ("def f(x): return ' ' * 10 ** 10", "assert candidate(1) == 2"),
    "signal": ("import os\ndef f(x): os.kill(os.getpid(), 11)", "assert candidate(1) == 2"),
    "output_limit": ("def f(x):\n  while True: print('x' * 9999)", "assert candidate(1) == 2"),
    "infra": ("def f(x): return x", "candidate(object())"),
}


@pytest.mark.parametrize("name", TESTS)
def test_a_test_runs_in_the_judge_and_the_candidate_elsewhere(best_judge: Runner, name: str) -> None:
    case = TESTS[name]
    expected, source, body = (name, *case) if len(case) == 2 else case
    limits = FILLING if expected in ("memory_limit", "output_limit") else QUICK
    verdict = best_judge(source, limits, entry_point="f", test=f"def check(candidate):\n    {body}\n")
    assert verdict.name == expected, verdict


def test_helpers_of_the_prompt_are_the_judges_own_and_cannot_be_redefined(judge: Runner) -> None:
    prompt = "def double(x):\n    return 2 * x\n\ndef f(x):\n    '''twice'''\n"
    source = prompt + "    return 0\ndef double(x):\n    return 0\n"
    test = "def check(candidate):\n    assert candidate(4) == double(4)\n"
    assert judge(source, entry_point="f", test=test, context=prompt).name == "wrong"


def test_an_endless_test_is_ended_too(best: Pool) -> None:
    program = Program("def f(x): return x", entry_point="f", test="def check(c):\n    while True: pass\n")
    verdict = best.run(program, QUICK)
    assert verdict.name in ("cpu_limit", "wall_limit"), verdict


def test_a_judge_never_sits_where_another_ones_test_left_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed connections hold their ports for a minute, and nothing but a new jail takes them away."""
    monkeypatch.setattr("engine.sandbox.sitting._MOST_TRIALS", 1)
    connects = (
        "import socket\ndef check(candidate):\n    s = socket.create_server(('127.0.0.1', 4242))\n"
        "    c = socket.create_connection(s.getsockname())\n    s.accept()[0].close()\n    c.recv(1)\n    c.close()\n"
        "    s.close()\n    candidate()\n"
    )
    binds = "import socket\ndef check(candidate):\n    socket.socket().bind(('127.0.0.1', 4242))\n    candidate()\n"
    near, far = socket.socketpair()
    with near, far, contextlib.closing(Worker(Setup(False, (), ()), near)) as worker:
        if worker.open(["full", "user"], 16)["level"] == "":
            pytest.skip("without namespaces there is no network of the jail's own")
        for test in (connects, binds, connects):
            case = Case.of(Program("def f(): return 1", entry_point="f", test=test), QUICK)
            assert worker.run(case).name == "passed"


def test_time_the_judge_takes_is_not_the_programs(pool: Pool) -> None:
    """Its wall time catches sleepers; one that waits for a test at work, or for a CPU its test waits for, is none."""
    works = (
        "import time\ndef check(candidate):\n    end = time.process_time() + 1.5\n"
        "    while time.process_time() < end: pass\n    assert candidate(1) == 1\n"
    )
    limits = replace(QUICK, wall_seconds=0.5)
    assert pool.run(Program("def f(x): return x", entry_point="f", test=works), limits).name == "passed"
    asleep = "import time\ndef f(x):\n    time.sleep(9)\n    return x"
    verdict = pool.run(Program(asleep, entry_point="f", test=works), limits)
    assert verdict.name == "wall_limit" and verdict.wall_seconds < 4, verdict


def test_dripping_output_is_no_excuse_for_sleeping(pool: Pool) -> None:
    drips = "import os, time\nwhile True:\n    os.write(1, b'x')\n    time.sleep(.0003)"
    verdict = pool.run(Program(drips), replace(QUICK, cpu_seconds=3, wall_seconds=0.5))
    # Its worker's waits for a CPU are excused, rightly; five times the limit on an idle machine was the attack.
    crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert verdict.name == "wall_limit" and verdict.wall_seconds < 4 * 0.5 * crowd, verdict


def test_a_test_that_leaves_is_never_the_programs_fault(pool: Pool) -> None:
    leaves = "import os\ndef check(candidate):\n    candidate()\n    os._exit(0)\n"
    for _ in range(5):
        assert pool.run(Program("def f(): return 1", entry_point="f", test=leaves), QUICK).name == "infra"


def test_expected_values_must_be_plain(best: Pool) -> None:
    with pytest.raises(WishError, match="plain data"):
        best.run(Program("x = 1", calls=(Call("x", object()),)))


def test_cpu_time_decides_and_sleeping_costs_none(judge: Runner) -> None:
    limits = Limits(cpu_seconds=0.3, wall_seconds=10, memory_mb=256)
    assert judge("import time\ntime.sleep(0.8)", limits).name == "passed"
    verdict = judge("import time\nwhile time.process_time() < 5: pass", limits)
    assert verdict.name == "cpu_limit" and verdict.cpu_seconds < 1.5


@pytest.mark.parametrize("name", ["cpu_seconds", "wall_seconds", "memory_mb"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**15])
def test_limits_no_kernel_takes_are_refused(name: str, value: float) -> None:
    with pytest.raises(WishError, match=f"{name} of a program is"):
        Limits(**{name: value})


ASKING_EARLY = "assert helper(1) == 2\n\ndef check(candidate):\n    assert candidate(1) == 2\n"
HANDING_BACK = "def check(candidate):\n    assert candidate(candidate(1)) is not None\n"
BLAMED = {
    "a wrong answer while the test is read": ("helper = f = lambda x: x", ASKING_EARLY, "wrong"),
    "an exception while the test is read": (
        "def f(x): return x + 1\ndef helper(x): 1 / 0", ASKING_EARLY, "runtime_error"
    ),
    "a name that is not there": ("def f(x): return x + 1", ASKING_EARLY, "wrong"),
    "an answer too large to hand back": ("def f(x): return 'x' * 10_485_740", HANDING_BACK, "output_limit"),
    "an answer too deep to hand back": (
        "def f(x):\n    a = []\n    for _ in range(149): a = [a]\n    return a",
        HANDING_BACK,
        "wrong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BLAMED)
def test_what_a_test_makes_of_answers_is_never_the_sandboxs_fault(best: Pool, name: str) -> None:
    source, test, expected = BLAMED[name]
    verdict = best.run(Program(source, entry_point="f", test=test), QUICK)
    assert verdict.name == expected, verdict


def test_a_test_that_fails_by_itself_is_the_sandboxs_fault(best: Pool) -> None:
    test = "raise ValueError('of its own')\ndef check(candidate): pass\n"
    assert best.run(Program("def f(x): return x", entry_point="f", test=test), QUICK).name == "infra"


LONG = Limits(cpu_seconds=3.0, wall_seconds=60.0)
SPINNING = """
import time

def check(candidate):
    assert candidate(1) == 1
    until = time.process_time() + SECONDS
    while time.process_time() < until:
        pass
    assert candidate(1) == 1
"""


@pytest.mark.slow
def test_a_test_without_end_is_not_taken_for_a_program_that_left(pool: Pool) -> None:
    """The judge's end closes the program's channel, and the program leaves: which is heard first must not tell."""
    endless = Program("def f(x):\n    return x\n", entry_point="f", test=SPINNING.replace("SECONDS", "99"))
    verdicts = list(pool.run_many([endless, endless], LONG))
    told = ("cpu_limit", "the test itself took over 10 CPU seconds")
    assert [(v.name, v.detail) for v in verdicts] == [told] * 2


@pytest.mark.slow
def test_a_test_may_take_as_long_as_its_program_may(pool: Pool) -> None:
    patient = Program("def f(x):\n    return x\n", entry_point="f", test=SPINNING.replace("SECONDS", "11"))
    assert pool.run(patient, replace(LONG, cpu_seconds=20.0)).passed
