"""Tests that run beside their program: each step has a record, and what a program patches does not answer for it."""

# ruff: noqa: E501 (programs are single strings)

from __future__ import annotations

import pytest

from engine.errors import WishError
from engine.sandbox import Pool, Program

from .conftest import QUICK

ADDS = "class Counter:\n  def __init__(self): self.n = 0\n  def add(self, k): self.n += k; return self.n\n"
ASSERTS = "c = Counter()\nassert c.add(2) == 2\nassert c.add(3) == 5\n"
CHECK = "def check(candidate):\n    assert candidate().add(4) == 4\n"
CASES = (
    "import unittest\nclass TestCounter(unittest.TestCase):\n  @classmethod\n  def setUpClass(cls): cls.ready = True\n"
    "  def setUp(self): self.c = Counter()\n  def test_adds(self): self.assertEqual(self.c.add(2), 2)\n"
    "  def test_is_ready(self): self.assertTrue(self.ready)\n  @unittest.skip('later')\n  def test_skipped(self): self.fail()\n"
)
MOCKS = "from unittest.mock import patch\nwith patch('builtins.print') as p:\n  print('x')\n  p.assert_called_once()\nassert Counter().add(1) == 1\n"


def together(source: str, test: str, **fields: object) -> Program:
    return Program(source, test=test, together=True, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("test", "entry_point"), [(ASSERTS, None), (CHECK, "Counter"), (CASES, None), (MOCKS, None)]
)
def test_a_right_class_passes(pool: Pool, test: str, entry_point: str | None) -> None:
    verdict = pool.run(together(ADDS, test, entry_point=entry_point), QUICK)
    assert verdict.passed, verdict
    assert verdict.form == "together"


@pytest.mark.parametrize(("test", "entry_point"), [(ASSERTS, None), (CHECK, "Counter"), (CASES, None)])
def test_a_wrong_class_is_wrong(pool: Pool, test: str, entry_point: str | None) -> None:
    verdict = pool.run(together(ADDS.replace("+= k", "-= k"), test, entry_point=entry_point), QUICK)
    assert verdict.name == "wrong", verdict


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Counter:\n  def add(self, k): return k / 0", "runtime_error"),
        ("import os\nos._exit(0)", "incomplete"),
        ("class Counter:\n  def add(self, k): raise SystemExit(0)", "incomplete"),
        ("import atexit, os, sys\natexit.register(os._exit, 0)\nsys.exit(0)", "incomplete"),
        ("class Counter:\n  def add(self, k):\n    while 1: pass", "cpu_limit"),
        ("def Counter(: pass", "compile_error"),
    ],
)
def test_the_label_is_right(best: Pool, source: str, expected: str) -> None:
    assert best.run(together(source, ASSERTS), QUICK).name == expected


FORGERIES = {
    "unittest replaced": "import unittest\nclass Fake:\n  def __init__(s, *a): pass\n  def run(s, *a): pass\nunittest.TestCase = Fake\nclass Counter:\n  def add(s, k): return 0",
    "assertEqual patched": "import unittest\nunittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *a: None\nclass Counter:\n  def add(s, k): return 0",
    "run patched": "import unittest\nunittest.TestCase.run = unittest.TestSuite.run = lambda s, r=None, *a: r.addSuccess(s) if r else None\nclass Counter:\n  def add(s, k): return 0",
    "builtins patched": "import builtins\nbuiltins.AssertionError = SystemExit\nbuiltins.exec = builtins.compile = lambda *a, **k: None\nbuiltins.len = lambda x: 0\nclass Counter:\n  def add(s, k): return 0",
    "trace that leaves": "import sys\nsys.settrace(lambda *a: sys.exit(0))\nsys.setprofile(lambda *a: None)\nclass Counter:\n  def add(s, k): return 0",
    "harness patched": "import sys\nfor n, m in list(sys.modules.items()):\n  if 'sandbox' in n:\n    for k, v in list(vars(m).items()):\n      if callable(v) and k != 'Tests':\n        try: setattr(m, k, lambda *a, **k: b'')\n        except Exception: pass\nclass Counter:\n  def add(s, k): return 0",
    "shadow module": "open('unittest.py', 'w').write('class TestCase:\\n  def __init__(s, *a): pass')\nclass Counter:\n  def add(s, k): return 0",
    "heap walk": "import gc\nfor o in gc.get_objects():\n  if type(o) is dict and 'done' in o: o['done'] = 99\nclass Counter:\n  def add(s, k): return 0",
    "made-up records": "import os\nfor _ in range(99): os.write(3, b'\\0\\0\\0\\x10D' + bytes(16))\nclass Counter:\n  def add(s, k): return 0",
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("test", [ASSERTS, CASES])
def test_no_forgery_passes(best: Pool, name: str, test: str) -> None:
    verdict = best.run(together(FORGERIES[name], test), QUICK)
    assert not verdict.passed and verdict.name != "infra", verdict
    assert best.run(together(ADDS, test), QUICK).passed


NINE = (
    "import unittest\nclass TestNine(unittest.TestCase):\n  def test_nine(self): self.assertEqual(f(3), 9)\n"
)
SKIPS = {
    "skips while it is called": "import unittest\ndef f(x): raise unittest.SkipTest('x')",
    "marks all cases as skipped": "import unittest\nunittest.TestCase.__unittest_skip__ = True\ndef f(x): return 1",
    "expects all to fail": "import unittest\nunittest.TestCase.__unittest_expecting_failure__ = True\ndef f(x): return 1",
    "expects it when it is called": "import unittest\ndef f(x):\n  unittest.TestCase.__unittest_expecting_failure__ = True\n  return 1",
    "takes the asserts away": "import unittest\nunittest.TestCase.__getattribute__ = lambda s, n: (lambda *a, **k: None) if n.startswith('assert') else object.__getattribute__(s, n)\ndef f(x): return 1",
    "makes no cases": "import unittest\nunittest.TestCase.__new__ = lambda c, m: (lambda r: r.addSuccess(None))\ndef f(x): return 1",
    "is another unittest": "import sys, types\nm = types.ModuleType('unittest')\nclass T:\n  def __init__(s, n): pass\n  def __call__(s, r): r.addSuccess(s)\n  def countTestCases(s): return 1\nm.TestCase = T\nsys.modules['unittest'] = m\ndef f(x): return 1",
}


def test_a_module_that_the_program_imports_too_is_there_for_the_test(pool: Pool) -> None:
    verdict = pool.run(together(f"import unittest.mock\n{ADDS}", f"import unittest.mock\n{MOCKS}"), QUICK)
    assert verdict.passed, verdict
    patched = MOCKS.replace("patch(", "unittest.mock.patch(")
    assert pool.run(
        together(f"import unittest.mock\n{ADDS}", f"import unittest.mock\n{patched}"), QUICK
    ).passed


def test_a_method_that_was_to_fail_and_passes_is_wrong(best: Pool) -> None:
    fails = NINE.replace("  def test", "  @unittest.expectedFailure\n  def test")
    assert best.run(together("def f(x): return 1", fails), QUICK).passed
    assert best.run(together("def f(x): return x * x", fails), QUICK).name == "wrong"


@pytest.mark.parametrize("name", SKIPS)
def test_only_the_test_itself_may_skip(best: Pool, name: str) -> None:
    assert best.run(together("def f(x): return x * x", NINE), QUICK).passed
    verdict = best.run(together(SKIPS[name], NINE), QUICK)
    assert not verdict.passed and verdict.name != "infra", verdict


def test_a_test_that_is_no_python_is_refused(best: Pool) -> None:
    with pytest.raises(WishError, match="not Python"):
        best.run(together("x = 1", "assert ("), QUICK)


def test_a_program_that_reads_nothing_does_not_hold_the_worker(best: Pool) -> None:
    test = "x = 1\n" * 20_000
    source = "import os, time\nos.write(3, b'\\0\\0\\0\\0R')\ntime.sleep(60)"
    assert best.run(together(source, test), QUICK).name in ("wall_limit", "wrong")
