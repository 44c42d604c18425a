"""What is read off a test before it runs must never change what the test decides."""

# ruff: noqa: E501 (each program is one string, so that the tables read as lists)

from __future__ import annotations

import marshal

import pytest

from engine.sandbox import Limits, Pool, Program
from engine.sandbox.ahead import foresee

from .conftest import QUICK

COMPARES = {
    "equality": "assert candidate(1) == 2",
    "either way round": "assert [2] == candidate(1)",
    "several, a docstring, a message": "'doc'\n    assert candidate(1) == 2, 'no'\n    assert candidate(x=(3,)) == {4: {5}}",
    "truth": "assert candidate(1)\n    assert not candidate(2)\n    assert True, 'always'",
    "identity of a singleton": "assert candidate(1) is None",
    "a message that asks again": "assert candidate(1) == 2, 'got ' + str(candidate(1))",
}
DOES_MORE = {
    "arithmetic": "assert abs(candidate(1) - 2) < 1",
    "a loop": "for i in range(3): assert candidate(i) == i",
    "a name": "x = 2\n    assert candidate(1) == x",
    "identity of a number": "assert candidate(1) is 2",
    "inequality": "assert candidate(1) != 2",
    "a chain": "assert candidate(1) == 2 == 2",
    "a call in the argument": "assert candidate(len('a')) == 2",
    "an assertion that fails": "assert candidate(1) == 2\n    assert False",
    "another call": "assert candidate(1) == 2\n    print('done')",
    "a default": None,
    "a statement beside check": None,
    "two checks": None,
    "an annotation": None,
    "a result's annotation": None,
    "an argument by name": None,
    "arguments of any number": None,
    "an argument by place": None,
}
WHOLE = {
    "a default": "def check(candidate=len):\n    assert candidate([]) == 0\n",
    "a statement beside check": "import sys\nsys.exit()\ndef check(candidate):\n    assert candidate(1) == 2\n",
    "an annotation": "def check(candidate: Callable):\n    assert candidate(1) == 2\n",
    "a result's annotation": "def check(candidate) -> boom():\n    assert candidate(1) == 2\n",
    "an argument by name": "def check(candidate, *, k=1/0):\n    assert candidate(1) == 2\n",
    "arguments of any number": "def check(candidate, *a: boom(), **k: boom()):\n    assert candidate(1) == 2\n",
    "an argument by place": "def check(a, /, candidate):\n    assert candidate(1) == 2\n",
    "two checks": "def check(c):\n    assert c(1) == 2\ndef check(c):\n    assert c(1) == 3\n",
}


def _test(body: str) -> str:
    return f"METADATA = {{'author': 'x'}}\n\n\ndef check(candidate):\n    {body}\n"


@pytest.mark.parametrize("name", COMPARES)
def test_a_test_that_only_compares_is_seen_through(name: str) -> None:
    seen = foresee(_test(COMPARES[name]))
    assert len(seen.answers) == len(marshal.loads(seen.calls)) > 0


@pytest.mark.parametrize("name", DOES_MORE)
def test_a_test_that_does_more_is_left_to_the_judge(name: str) -> None:
    body = DOES_MORE[name]
    assert not foresee(WHOLE[name] if body is None else _test(body)).answers


AS_PYTHON_SAYS = {
    "equal of another type": ("def f(x): return True", "assert candidate(0) == 1", "passed"),
    "a float for an int": ("def f(x): return 1.0", "assert candidate(0) == 1", "passed"),
    "minus zero": ("def f(x): return -0.0", "assert candidate(0) == 0.0", "passed"),
    "another order of a dict": ("def f(x): return {2: 2, 1: 1}", "assert candidate(0) == {1: 1, 2: 2}", "passed"),
    "a set": ("def f(x): return {3, 1, 2}", "assert candidate(0) == {1, 2, 3}", "passed"),
    "a tuple for a list": ("def f(x): return (1,)", "assert candidate(0) == [1]", "wrong"),
    "not a number": ("def f(x): return float('nan')", "assert candidate(0) == 1e999 * 0", "wrong"),
    "truthy": ("def f(x): return [0]", "assert candidate(0)", "passed"),
    "one is not True": ("def f(x): return 1", "assert candidate(0) is True", "wrong"),
    "a counter": ("import collections\ndef f(x): return collections.Counter('aa')", "assert candidate(0) == {'a': 2}", "passed"),
    "the second one is wrong": ("def f(x): return 2", "assert candidate(0) == 2\n    assert candidate(1) == 3", "wrong"),
    "right, then an error": ("def f(x): return 2 // (1 - x)", "assert candidate(0) == 2\n    assert candidate(1) == 3", "runtime_error"),
    "right, then gone": ("import os\ndef f(x):\n  if x: os._exit(0)\n  return 2", "assert candidate(0) == 2\n    assert candidate(1) == 3", "incomplete"),
    "right, then no end": ("def f(x):\n  while x: pass\n  return 2", "assert candidate(0) == 2\n    assert candidate(1) == 3", "cpu_limit"),
    "wrong, then no end": ("def f(x):\n  while x: pass\n  return 7", "assert candidate(0) == 2\n    assert candidate(1) == 3", "wrong"),
    "an error that the test expects": ("def f(x): raise ValueError", "try:\n        candidate(0)\n    except ValueError:\n        return\n    assert 0", "passed"),
    "no text of Python": ("def f(x: return 2", "assert candidate(0) == 2", "compile_error"),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_PYTHON_SAYS)
def test_the_verdict_is_the_one_the_test_itself_comes_to(best: Pool, name: str) -> None:
    source, body, expected = AS_PYTHON_SAYS[name]
    program = Program(source, entry_point="f", test=_test(body))
    verdict = best.run(program, QUICK)
    assert (verdict.name, verdict.form) == (expected, "test"), verdict


FORGED = {
    "the answer before the call": "import os, struct\nv = b'l\\0\\0\\0\\2i\\0\\0\\0\\1\\2l\\0\\0\\0\\0'\nos.write(3, struct.pack('>Ic', len(v), b'V') + v)\ndef f(x): os._exit(0)",
    "half an answer": "import os\nos.write(3, b'\\0\\0\\0\\x0eVl\\0')\ndef f(x): os._exit(0)",
    "an answer of another kind": "import os\nos.write(3, b'\\0\\0\\0\\1DT')\ndef f(x): return 3",
    "a long silence": "import time\ndef f(x): time.sleep(99)",
}


@pytest.mark.parametrize("name", FORGED)
def test_bytes_on_the_channel_are_no_shorter_way(best: Pool, name: str) -> None:
    test = _test("assert candidate(1) == 2\n    assert candidate(2) == 4")
    verdict = best.run(Program(FORGED[name], entry_point="f", test=test), QUICK)
    assert not verdict.passed and verdict.name != "infra", verdict
    right = Program("def f(x): return 2 * x", entry_point="f", test=test)
    assert best.run(right, Limits()).passed
