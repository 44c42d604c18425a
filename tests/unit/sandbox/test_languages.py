"""Programs in other languages: what each kind of program comes to, at every level that runs them."""

from __future__ import annotations

import os
import random
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import WishError
from engine.sandbox import Call, File, Limits, Pool, Program, Verdict
from engine.sandbox.foreign import toolchain
from engine.sandbox.foreign.languages import LANGUAGES
from engine.sandbox.foreign.toolchain import languages

from .specimens import SPECIMENS

FAIR = Limits(cpu_seconds=5, wall_seconds=20, memory_mb=512)
SMALL = replace(FAIR, memory_mb=256)
# Each limit is met with room in the others: a shell takes its time to print, or to double, until there is too much.
TIGHT = {"loop": replace(FAIR, cpu_seconds=0.5), "bomb": SMALL, "flood": SMALL}
FOUND = languages()
ALL = [
    pytest.param(name, marks=pytest.mark.skipif(bool(FOUND[name].missing), reason=FOUND[name].missing))
    for name in LANGUAGES
]
QUICK_ONES = ("javascript", "bash", "perl", "lua")
EVERYWHERE = [
    pytest.param(p.values[0], marks=[*p.marks, *([] if p.values[0] in QUICK_ONES else [pytest.mark.slow])])
    for p in ALL
]
"""Those with a compiler cost too much to be run again at each level."""


def many(pool: Pool, language: str, *arguments: str, limits: Limits = FAIR, stdin: bytes = b"") -> Verdict:
    source = SPECIMENS[language].many
    return pool.run(Program(source, language=language, arguments=arguments, stdin=stdin), limits)


def judged(pool: Pool, language: str, source: str) -> Verdict:
    return pool.run(Program(source, language=language, test=SPECIMENS[language].test), FAIR)


def sleeping(seconds: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().split(b"\0")[1:2] == [seconds.encode()]:
                found.append(file.parent.name)
        except OSError:
            continue
    return found


def test_every_language_has_its_specimens() -> None:
    assert set(SPECIMENS) == set(LANGUAGES)


@pytest.mark.parametrize("language", ALL)
def test_a_script_gets_stdin_and_arguments(best: Pool, language: str) -> None:
    verdict = many(best, language, "echo", "a", "b c", stdin=b"one\ntwo\n")
    assert verdict.passed, verdict
    assert verdict.stdout == "one\ntwo\na|b c\n"
    assert verdict.form == "command"
    assert verdict.toolchain == FOUND[language].version
    assert any(letter.isdigit() for letter in verdict.toolchain)


@pytest.mark.parametrize("language", ALL)
def test_a_test_tells_right_from_wrong(best: Pool, language: str) -> None:
    right, wrong = (
        judged(best, language, source) for source in (SPECIMENS[language].right, SPECIMENS[language].wrong)
    )
    assert (right.name, right.form) == ("passed", "together"), right
    assert (wrong.name, wrong.form) == ("wrong", "together"), wrong
    assert wrong.detail


@pytest.mark.parametrize("language", ALL)
def test_whoever_leaves_before_the_tests_are_done_has_not_passed(best: Pool, language: str) -> None:
    for source in (SPECIMENS[language].leaves, SPECIMENS[language].forges):
        verdict = judged(best, language, source)
        # luaunit takes an exit inside a test for an error of its own
        assert verdict.name == ("runtime_error" if language == "lua" else "incomplete"), verdict


@pytest.mark.parametrize("language", ALL)
def test_what_does_not_compile_says_where(best: Pool, language: str) -> None:
    verdict = judged(best, language, SPECIMENS[language].broken)
    assert verdict.name == "compile_error", verdict
    assert re.search(SPECIMENS[language].complaint, verdict.detail), verdict


@pytest.mark.parametrize("language", ALL)
def test_an_error_is_a_runtime_error_in_its_own_words(best: Pool, language: str) -> None:
    verdict = many(best, language, "crash")
    assert verdict.name == ("signal" if language == "cpp" else "runtime_error"), verdict
    assert re.search(SPECIMENS[language].crash, verdict.detail), verdict


@pytest.mark.parametrize("language", EVERYWHERE)
@pytest.mark.parametrize(
    ("mode", "name"), [("loop", "cpu_limit"), ("bomb", "memory_limit"), ("flood", "output_limit")]
)
def test_limits_hold_and_are_named(pool: Pool, language: str, mode: str, name: str) -> None:
    if pool.level == "process":
        with pytest.raises(
            WishError, match=f"a program in {language} starts other programs, which isolation"
        ):
            many(pool, language, mode)
        return
    assert many(pool, language, mode, limits=TIGHT[mode]).name == name
    assert many(pool, language, "echo", "next").passed


@pytest.mark.parametrize("language", [p for p in ALL if LANGUAGES[str(p.values[0])].compile])
@pytest.mark.parametrize("mode", ["loop", "bomb", "flood"])
def test_a_compiled_program_is_stopped_as_any_other(best: Pool, language: str, mode: str) -> None:
    verdict = many(best, language, mode, limits=TIGHT[mode])
    assert verdict.name == {"loop": "cpu_limit", "bomb": "memory_limit", "flood": "output_limit"}[mode]


@pytest.mark.parametrize("language", ALL)
def test_nothing_gets_out_and_nothing_stays(best: Pool, language: str, tmp_path: Path) -> None:
    seconds = str(random.randrange(10**6, 10**7))
    (tmp_path / "secret").write_text("secret")
    homes = [str(f) for f in Path.home().glob(".*") if f.is_file() and os.access(f, os.R_OK)]
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        port = str(door.getsockname()[1])
        paths = ("/etc/shadow", str(tmp_path / "secret"), *homes[:3], "/etc/passwd")
        verdict = many(best, language, "escape", port, seconds, *paths)
        with pytest.raises(BlockingIOError):
            door.accept()
    assert verdict.passed, verdict
    # the password file is the jail's own, and shows that the program did look
    assert verdict.stdout == "read /etc/passwd\nrefused\n"
    assert not sleeping(seconds)


@pytest.mark.parametrize("language", ALL)
def test_one_program_is_compiled_once(best: Pool, language: str) -> None:
    builds = best._foreign.builds
    many(best, language, "echo")
    before = builds.made
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(many, best, language, "echo", str(n)) for n in range(4)]
        assert [run.result().stdout for run in runs] == [f"{n}\n" for n in range(4)]
    assert builds.made == before


def test_files_go_in_and_come_back_at_any_level(pool: Pool) -> None:
    source = 'read -r line < in/data.txt; echo "$line, again" > out.txt; ./tool; env | sort'
    files = (File("in/data.txt", b"once\n"), File("tool", b"#!/bin/sh\necho tool\n", executable=True))
    program = Program(source, language="bash", files=files, collect=("out.txt", "missing.txt"))
    if pool.level == "process":
        with pytest.raises(WishError, match="which isolation level process forbids"):
            pool.run(program, FAIR)
        return
    verdict = pool.run(program, FAIR)
    assert verdict.passed, verdict
    assert verdict.files == (File("out.txt", b"once, again\n"),)
    names = {line.partition("=")[0] for line in verdict.stdout.splitlines()[1:]}
    assert names <= {"HOME", "LANG", "PATH", "TMPDIR", "PWD", "SHLVL", "OLDPWD", "_"}
    assert pool.run(Program("[ ! -e out.txt ] && [ ! -e in ]", language="bash"), FAIR).passed


def test_each_program_of_a_fresh_pool_has_a_jail_of_its_own() -> None:
    with Pool(1, mode="fresh") as fresh:
        for _ in range(2):
            assert many(fresh, "bash", "echo", "x").stdout == "x\n"
        assert fresh.run(Program("echo $$", language="bash"), FAIR).passed


def test_a_language_that_is_not_in_the_table_is_refused(best: Pool) -> None:
    with pytest.raises(WishError, match="there is no language 'javascrip': did you mean 'javascript'"):
        best.run(Program("1", language="javascrip"), FAIR)


def test_a_missing_toolchain_says_what_to_install(best: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(LANGUAGES["lua"], tools={"lua": ("lua-of-nowhere",)})
    monkeypatch.setitem(LANGUAGES, "lua", row)
    monkeypatch.setattr(toolchain, "_found", {})
    with pytest.raises(WishError) as refused:
        best.run(Program("print(1)", language="lua"), FAIR)
    assert refused.value.what.startswith("toolchain missing: programs in lua need lua-of-nowhere")
    assert refused.value.fix == "install Lua (Debian: lua5.4)"
    assert "lua-of-nowhere" in languages()["lua"].missing


def test_what_other_languages_cannot_have_is_refused(best: Pool) -> None:
    for fields, reason in (
        ({"calls": (Call("f()", 1),)}, "cannot be judged by calls"),
        ({"context": "x = 1", "test": "true"}, "takes no context"),
        ({"files": (File("../x", b""),)}, "may not be named"),
    ):
        with pytest.raises(WishError, match=reason):
            best.run(Program("echo", language="bash", **fields), FAIR)  # type: ignore[arg-type]


CHEATS = {
    "a promise that is never kept": (
        "javascript",
        "function add(a, b) { return new Promise(() => {}); }",
        "const assert = require('node:assert');\nasync function test() { assert.equal(await add(2, 2), 4); }\ntest();",
    ),
    "the same in a module": (
        "javascript",
        "import fs from 'node:fs';\nfunction add(a, b) { return new Promise(() => {}); }",
        "import assert from 'node:assert';\nassert.equal(await add(2, 2), 4);",
    ),
    "an assert of its own": (
        "cpp",
        "#include <cassert>\n#undef assert\n#define assert(x)\nlong add(long, long) { return 0; }",
        "",
    ),
    "no assert at all": ("cpp", "#define NDEBUG\n#include <cassert>\nlong add(long, long) { return 0; }", ""),
    "a macro of its own": (
        "rust",
        "macro_rules! assert_eq { ($($t:tt)*) => {} }\nfn add(_a: i64, _b: i64) -> i64 { 0 }",
        "",
    ),
    "a set of its own": ("bash", "set() { :; }; add() { echo 0; }", 'set -e\n[[ $(add 2 2) = "4" ]]\ntrue'),
    "a trap on errors": ("bash", "trap 'exit 0' ERR; add() { echo 0; }", ""),
    "a trap on the end": ("bash", "trap 'exit 0' EXIT; add() { echo 0; }", ""),
    "no assertions in java": (
        "java",
        "class Problem {\n    static { ClassLoader.getSystemClassLoader().setDefaultAssertionStatus(false); }\n"
        "    static long add(long a, long b) { return 0; }\n",
        "",
    ),
    "a luaunit of its own": (
        "lua",
        "package.loaded.luaunit = setmetatable({LuaUnit = {run = function() return 0 end}},\n"
        "    {__index = function() return function() end end})\nlocal function add(a, b) end",
        "",
    ),
    "no test to be run": (
        "go",
        'package main\nimport (\n"os"\n"testing"\n)\nfunc init() { os.Args = append(os.Args, "-test.run=none") }\n'
        "func add(a, b int) int { return 0 }\n",
        "",
    ),
    "a goroutine that leaves": (
        "go",
        'package main\nimport (\n"runtime"\n"testing"\n)\nfunc add(a, b int) int { runtime.Goexit(); return 0 }\n',
        "",
    ),
}


@pytest.mark.parametrize(
    ("language", "source", "test"),
    [
        pytest.param(*cheat, id=name, marks=next(p for p in ALL if p.values[0] == cheat[0]).marks)
        for name, cheat in CHEATS.items()
    ],
)
def test_a_program_that_takes_its_tests_tools_does_not_pass(
    best: Pool, language: str, source: str, test: str
) -> None:
    program = Program(source, language=language, test=test or SPECIMENS[language].test)
    assert best.run(program, FAIR).name in ("wrong", "incomplete", "runtime_error")


@pytest.mark.parametrize("language", [p for p in ALL if p.values[0] in ("javascript", "typescript")])
def test_an_asynchronous_test_is_waited_for(best: Pool, language: str) -> None:
    later = "new Promise(done => setTimeout(() => done(a + b), 20))"
    types = (": any", ": Promise<any>") if language == "typescript" else ("", "")
    source = f"function add(a{types[0]}, b{types[0]}){types[1]} {{ return {later}; }}"
    for last in ("test();", "(async () => {\n  await test();\n})();"):
        test = (
            "const assert = require('node:assert');\n"
            f"async function test() {{ assert.equal(await add(2, 2), 4); }}\n{last}"
        )
        assert best.run(Program(source, language=language, test=test), FAIR).passed
        wrong = source.replace("a + b", "a - b")
        assert best.run(Program(wrong, language=language, test=test), FAIR).name == "wrong"
