"""The verbs as a person types them: run in any language, files in and out, languages, and errors that say the fix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.errors import WishError
from engine.sandbox.commands import sandbox
from engine.sandbox.foreign.languages import LANGUAGES, language_of


def temper_sandbox(*words: object) -> Result:
    return CliRunner().invoke(sandbox, [str(word) for word in words], catch_exceptions=False)


def test_the_suffix_tells_the_language_and_another_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text('echo "$1 $(cat)"')
    (tmp_path / "in").write_text("there")
    words = ("run", tmp_path / "a.sh", "--argument", "hello", "--stdin", tmp_path / "in", "--json")
    answer = json.loads(temper_sandbox(*words).stdout)
    assert (answer["verdict"], answer["stdout"], answer["form"]) == ("passed", "hello there\n", "command")
    assert answer["toolchain"].startswith("bash ")
    (tmp_path / "plain").write_text("import sys\nprint(sys.argv[1:])")
    done = temper_sandbox("run", tmp_path / "plain", "--argument", "a b", "--argument", "--c")
    assert done.stdout == "['a b', '--c']\n" and done.stderr.startswith("passed (")
    (tmp_path / "plain").write_text("echo $BASH_VERSION")
    done = temper_sandbox("run", tmp_path / "plain", "--language", "bash")
    assert "passed (" in done.stderr and ", bash " in done.stderr


def test_every_suffix_names_one_language() -> None:
    suffixes = [suffix for row in LANGUAGES.values() for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes)) and ".py" not in suffixes
    for name, row in LANGUAGES.items():
        assert language_of(Path(row.source)) == name
        assert {language_of(Path(f"x{suffix.upper()}")) for suffix in row.suffixes} == {name}


def test_files_go_in_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import os, subprocess\nos.mkdir('d')\nopen('d/out', 'w').write(open('word').read() * 2)"
    )
    (tmp_path / "word").write_text("ab")
    words = ("run", tmp_path / "a.py", "--file", tmp_path / "word", "--collect", "d/out", "--collect", "no")
    done = temper_sandbox(*words, "--into", tmp_path / "back")
    assert (tmp_path / "back/d/out").read_text() == "abab"
    assert "collected " in done.stderr and "not collected: no is no plain file" in done.stderr
    answer = json.loads(temper_sandbox(*words, "--into", tmp_path / "back", "--json").stdout)
    assert answer["files"] == [str(tmp_path / "back/d/out")]


def test_modes_and_preloaded_modules(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys, os\nprint('numpy' in sys.modules, os.getpid())")
    done = temper_sandbox("run", tmp_path / "a.py", "--mode", "fresh", "--preload", "numpy")
    assert done.stdout == "True 2\n", done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a.rb",), "no language that is run here has files that end in '.rb'.*--language"),
        (("a.py", "--language", "pyhton"), "there is no language 'pyhton': did you mean 'python'"),
        (("a.py", "--collect", "x"), "there is no folder for x: name one with --into"),
        (("a.py", "--into", "x"), "nothing is to be collected into x: name files with --collect"),
        (("a.py", "--collect", "../x", "--into", "x"), "may not be named '../x'"),
        (("a.py", "--file", "missing"), "cannot read missing: No such file"),
        (("a.py", "--file", "a.sh", "--file", "d/a.sh"), "two files are named a.sh: rename one"),
        (("a.sh", "--preload", "numpy"), "modules cannot be preloaded for bash: leave out --preload"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    for name in ("a.py", "a.sh", "a.rb", "d/a.sh"):
        Path(name).write_text("")
    with pytest.raises(WishError, match=sentence):
        temper_sandbox("run", *words)


def test_languages_are_listed_with_versions_or_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LANGUAGES, "lua", replace(LANGUAGES["lua"], tools={"lua": ("lua-of-nowhere",)}))
    text = temper_sandbox("languages").stdout
    assert "python      python 3." in text and "bash        bash " in text
    assert "lua         no: programs in lua need lua-of-nowhere" in text
    assert "            install Lua (Debian: lua5.4)" in text
    rows = json.loads(temper_sandbox("languages", "--json").stdout)
    assert set(rows) == {"python", *LANGUAGES}
    assert rows["bash"]["suffixes"] == [".sh", ".bash"] and not rows["bash"]["missing"]
    assert rows["lua"]["install"] and not rows["lua"]["version"]
