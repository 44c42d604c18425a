"""The look of the house: sizes of files and functions, names, finished sentences, no trace of a workplace."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "launch").rglob("*.py")])
DRAWERS = {"util", "utils", "common", "helper", "helpers", "misc", "base", "manager", "handler", "handlers"}
UNFINISHED = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError|\bplaceholder\b|\bfor now\b")
ELSEWHERE = re.compile(r"(?<![\w.])/(work|tmp/temper|opt/pypi|opt/wheels)/", re.IGNORECASE)
MOST_LINES = 400
MOST_FUNCTION_LINES = 70


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_size_of_files() -> None:
    long = {shown(file): lines for file in CODE if (lines := len(file.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_size_of_functions() -> None:
    long = [
        f"{shown(file)}:{node.lineno} {node.name} has {lines} lines"
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_names_of_files_say_what_is_in_them() -> None:
    assert not [shown(file) for file in CODE if file.stem in DRAWERS or file.parent.name in DRAWERS]


def test_names_of_modules_have_a_sentence() -> None:
    without = []
    for file in CODE:
        docstring = ast.get_docstring(ast.parse(file.read_text()))
        if not docstring or not docstring.splitlines()[0].rstrip().endswith((".", "?")):
            without.append(shown(file))
    assert not without, "the first line of a module says its responsibility"


def test_names_of_unfinished_work_are_absent() -> None:
    found = [
        f"{shown(file)}:{number}: {line.strip()}"
        for file in CODE
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


def test_names_of_machines_are_absent() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no list of the project's own files")
    found = []
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if not file.is_file() or file.suffix in (".png", ".safetensors", ".gz"):
            continue
        if file == Path(__file__):
            continue
        text = file.read_text(encoding="utf-8", errors="ignore")
        found += [f"{name}: {match.group()}" for match in ELSEWHERE.finditer(text)]
    assert not found, "\n".join(found[:20])


def test_names_of_test_files_do_not_clash() -> None:
    stems = [
        str(file.relative_to(ROOT / "tests").with_suffix("")) for file in (ROOT / "tests").rglob("test_*.py")
    ]
    assert len(stems) == len(set(stems))
