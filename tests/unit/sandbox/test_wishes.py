"""A caller's mistake is named before anything is run; nothing that judges nothing may pass."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import WishError
from engine.sandbox import Call, File, Limits, Pool, Program

CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"

REFUSED = {
    "a check that nobody calls": ({"test": CHECK, "together": True}, "nothing calls it"),
    "a check without its function": ({"test": CHECK}, "a test needs entry_point"),
    "no check": ({"test": "assert f(1) == 2", "entry_point": "f"}, "does not define check"),
    "a test that is not Python": ({"test": "def check(:", "entry_point": "f"}, "not Python"),
    "an empty test": ({"test": " ", "entry_point": "f"}, "does not define check"),
    "two ways to judge": ({"test": CHECK, "entry_point": "f", "calls": (Call("f(1)", 2),)}, "both calls"),
    "a context for nothing": ({"context": "x = 1", "calls": (Call("f(1)", 2),)}, "no test"),
    "text for bytes": ({"stdin": "abc"}, "stdin is a str"),
    "a file of text": ({"files": (File("a", "b"),)}, "holds a str"),  # type: ignore[arg-type]
    "calls that are pairs": ({"calls": (("f(1)", 2),)}, "calls hold a tuple"),
    "an expression that is a number": ({"calls": (Call(1, 2),)}, "expression is a int"),  # type: ignore[arg-type]
    "one argument": ({"arguments": "abc"}, "arguments are a str"),
    "a name that is no text": ({"collect": ("\ud800",)}, "may not be named"),
    "a name of many bytes": ({"collect": ("\u4e2d" * 200,)}, "may not be named"),
    "names too long together": ({"collect": tuple(f"{i:0490}" for i in range(20))}, "too long together"),
    "a test that is a number": ({"test": 5}, "test is a int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_cannot_be_judged_is_refused(best: Pool, name: str) -> None:
    fields: dict[str, Any] = REFUSED[name][0]
    with pytest.raises(WishError, match=REFUSED[name][1]):
        best.run(Program("def f(x): return x + 1", **fields))


@pytest.mark.parametrize("source", [None, 5, ["x"], b"x = 1"])
def test_a_source_is_text(best: Pool, source: Any) -> None:
    with pytest.raises(WishError, match="source is a"):
        best.run(Program(source))
    with pytest.raises(WishError, match="no Program"):
        best.run(source)


@pytest.mark.parametrize("value", ["a", None, True, [1]])
def test_limits_are_numbers(value: Any) -> None:
    with pytest.raises(WishError, match="cpu_seconds of a program is"):
        Limits(cpu_seconds=value)


TESTS_OF_THEIR_OWN = {
    "by name": "check = lambda candidate: None",
    "in a condition": "if True:\n    def check(candidate): assert candidate(1) == 2",
    "from elsewhere": "from math import floor as check",
}


@pytest.mark.parametrize("name", TESTS_OF_THEIR_OWN)
def test_check_may_come_about_in_any_way(best: Pool, name: str) -> None:
    verdict = best.run(Program("def f(x): return x + 1", entry_point="f", test=TESTS_OF_THEIR_OWN[name]))
    assert verdict.name in ("passed", "wrong"), verdict


def test_a_test_that_calls_its_own_check_needs_no_entry_point(best: Pool) -> None:
    program = Program("def f(x): return x", test=f"{CHECK}check(f)\n", together=True)
    assert best.run(program).name == "wrong"


def test_an_error_of_compiling_names_nothing_of_the_sandbox(best: Pool) -> None:
    stderr = best.run(Program("def f(:\n")).stderr
    assert "SyntaxError" in stderr and "sandbox" not in stderr and "Traceback" not in stderr
