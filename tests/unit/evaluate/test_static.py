"""Facts of programs that are looked at and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.evaluate import static
from engine.evaluate.static import describe

BRANCHES = "def f(x):\n    if x:\n        return 1\n    for i in x:\n        return i\n"
UNUSED = "import os\n\n\ndef f(x):\n    return x\n"


def test_length_complexity_and_findings_of_each_text_once() -> None:
    found = describe(
        {"passing": [BRANCHES, UNUSED, UNUSED], "failing": ["def f(:\n", UNUSED], "references": []}
    )
    passing = found.facts["passing"]
    assert (passing.programs, passing.lines, passing.complexity, passing.unreadable) == (2, 4.0, 2.0, 0)
    assert passing.findings is not None and passing.findings["F401"] == pytest.approx(100 / 8)
    failing = found.facts["failing"]
    assert (failing.unreadable, failing.findings) == (1, {"F401": 100 / 3})
    assert found.facts["references"].programs == 0
    assert "1 are no Python" in "\n".join(found.lines())


def test_nothing_is_executed_and_no_comment_hides_a_finding(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"# ruff: noqa\nimport os  # noqa\nopen({str(mark)!r}, 'w').close()\n"
    facts = describe({"programs": [text, "x = '\ud800'\n", "\0"]}).facts["programs"]
    assert not mark.exists()
    assert facts.programs == 3 and facts.findings and "F401" in facts.findings


NESTED = ["(" * 5000, "x = " + "-" * 200_000 + "1", "x = " + "a." * 100_000 + "b", "[" * 150 + "]" * 150]
NESTED += ["x = " + "1 + " * 100_000 + "1", "if x:\n" + "".join(" " * n + "if x:\n" for n in range(1, 150))]


def test_text_that_is_nested_without_end_is_a_finding_and_no_crash() -> None:
    facts = describe({"programs": [*NESTED, BRANCHES]}).facts["programs"]
    assert facts.programs == len(NESTED) + 1 and facts.complexity == 4.0 - 1.0
    assert facts.unreadable is not None and facts.unreadable >= 4


def test_without_ruff_lengths_alone_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "_ruff", lambda: None)
    found = describe({"programs": [BRANCHES]})
    facts = found.facts["programs"]
    assert (facts.lines, facts.complexity, facts.findings) == (5, None, None)
    assert "ruff is not installed" in found.lines()[0]
