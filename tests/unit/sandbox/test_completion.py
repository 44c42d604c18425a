"""Where the secret goes that tells a test came to its end: behind the last check, whatever the main looks like."""

from __future__ import annotations

import re

import pytest

from engine.sandbox.foreign import completion
from engine.sandbox.foreign.completion import (
    append,
    before_brace,
    in_bash,
    in_cpp,
    in_go,
    in_javascript,
    in_lua,
    in_rust,
    is_go_test,
)
from engine.sandbox.foreign.languages import LANGUAGES

SECRET = "5ec2e7"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_secret_is_there_once_and_behind_the_test(language: str) -> None:
    tests = {
        "go": 'func main() {\n  check("the last check")\n}',
        "lua": "check('the last check')\nos.exit(lu.LuaUnit.run())",
    }
    test = tests.get(language, 'int main() {\n  check("the last check");\n}\n}')
    tested = LANGUAGES[language].completion("the program", test, SECRET)
    everything = tested.source + "".join(file.data.decode() for file in tested.files)
    assert SECRET in everything and "SECRET" not in everything
    assert "the program" in tested.source
    assert tested.source.index("the last check") < tested.source.rindex(
        "record" if language == "go" else SECRET
    )


def test_a_statement_is_appended_on_a_line_of_its_own() -> None:
    assert append("tell SECRET")("a # b", "c # d", SECRET) == completion.Tested(
        f"a # b\nc # d\ntell {SECRET}\n"
    )


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("int main() { check(); }", "int main() { check();  TELL }"),
        ("int main() { check(); return 0; }\n", "int main() { check();  TELL return 0; }\n"),
        ("int main() {\n  check();\n  return 0;\n}\n", "int main() {\n  check();\n   TELL return 0;\n}\n"),
        ("fn main() { check();\n Ok(()) }", "fn main() { check();\n  TELL Ok(()) }"),
        ("int main() { if (x) { check(); } }", "int main() { if (x) { check(); }  TELL }"),
    ],
)
def test_the_last_brace_closes_main(test: str, told: str) -> None:
    tested = before_brace("TELL")("program", test, SECRET)
    assert tested == completion.Tested(f"program\n{told}")


def test_the_brace_before_the_last_closes_a_main_inside_a_class() -> None:
    test = "  static void main() {\n    check();\n    System.exit(0);\n  }\n}\n"
    tested = before_brace("TELL", braces=2)("class A {", test, SECRET).source
    assert tested == "class A {\n  static void main() {\n    check();\n     TELL System.exit(0);\n  }\n}\n"


@pytest.mark.parametrize("text", ["", "no brace", "}"])
def test_without_a_main_nothing_is_put_in(text: str) -> None:
    assert before_brace("TELL", braces=2)("", text, SECRET).source == f"\n{text}"


def test_luaunit_tells_before_it_leaves_and_only_of_success() -> None:
    source = in_lua("p", "check()\nos.exit( lu.LuaUnit.run() );\n", SECRET).source
    told, left = source.index(f'record:write("{SECRET}")'), source.rindex("os.exit(")
    assert source.index("lu.LuaUnit.run()") < told < left
    assert f"if end_{SECRET} == 0 or end_{SECRET} == true then" in source


def test_lua_that_does_not_leave_by_itself_tells_at_its_end() -> None:
    for test in ("assert(f() == 1)", "os.exit(1)\nassert(true)"):
        source = in_lua("p", test, SECRET).source
        assert source.startswith(f"p\n{test}\n")
        assert SECRET in source.rpartition("\n")[0].rpartition("\n")[2]


def test_go_tests_are_wrapped_and_programs_call_the_record_last() -> None:
    test = "func TestAdd(t *testing.T) { t.Fail() }"
    wrapped = in_go("package sums\n", test, SECRET)
    assert wrapped.source == f"package sums\n\n{test}"
    (file,) = wrapped.files
    assert file.name == "a_record_test.go"
    text = file.data.decode()
    assert text.startswith("package sums\n")
    assert re.search(rf'm\.Run\(\); if code == 0 \{{.*"{SECRET}"', text)
    called = in_go("package main", "func main() { check() }", SECRET)
    assert called.source.endswith(f"check()  ; record{SECRET}(); }}")
    assert called.files[0].name == "record.go"
    assert f"func record{SECRET}()" in called.files[0].data.decode()


@pytest.mark.parametrize(
    ("source", "is_test"),
    [
        ("func TestAdd(t *testing.T) {}", True),
        ("x\nfunc Test(tt *testing.T) {}", True),
        ("// func TestAdd(t *testing.T) {}", False),
        ("func main() {}", False),
        ("func TestAdd(t int) {}", False),
    ],
)
def test_a_go_test_is_known_by_its_functions(source: str, is_test: bool) -> None:
    assert is_go_test(source) is is_test


@pytest.mark.parametrize(
    ("test", "call"),
    [
        ("test();\n", "test()"),
        ("x;\nassert.equal(add(1, 2), 3)", "assert.equal(add(1, 2), 3)"),
        ("async function test() {}\nawait test();", "await test()"),
        ("void test();", "test()"),
        ("x\n(async () => {\n  await test();\n\n})();\n", "(async () => {\n  await test();\n\n})()"),
    ],
)
def test_javascript_tells_when_its_last_call_is_done(test: str, call: str) -> None:
    source = in_javascript("program", test, SECRET).source
    assert f";Promise.resolve({call}).then(() => eval(" in source
    assert source.count("test()") == test.count("test()")


@pytest.mark.parametrize(
    "test",
    [
        "if (x) test()",
        "a(); b();",
        "test() // and (more)",
        "  test();",
        "const x =\ntest();",
        "function test() {}",
        "assert.equal(f(1),\n  2);",
        "(async () => { await 1; })();\nconst y = (() => 1)();",
        "",
    ],
)
def test_javascript_that_ends_otherwise_is_left_as_it_is(test: str) -> None:
    assert in_javascript("program", test, SECRET).source.startswith(f"program\n{test}\n;eval(")


def test_comments_behind_the_last_brace_have_no_say() -> None:
    test = "int main() { check(); }\n// }\n\n  // the end }\n"
    assert before_brace("TELL")("p", test, SECRET).source == test.replace("(); }", "();  TELL }").join(
        ("p\n", "")
    )


def test_a_test_keeps_its_tools() -> None:
    assert "\n  builtin set -e\n" in in_bash("set() { :; }", "f() {\n  set -e\n}", SECRET).source
    rust = in_rust(
        "macro_rules! assert_eq { () => {} }", "fn main() { assert_eq!(1, 1); x::assert!(y); }", SECRET
    )
    assert "::std::assert_eq!(1, 1); x::assert!(y);" in rust.source
    own = "macro_rules! assert_eq { () => {} }\nfn main() { assert_eq!() }"
    assert "::std::assert_eq" not in in_rust("", own, SECRET).source
    cpp = in_cpp("one\ntwo", "int main() { assert(x); }", SECRET).source.splitlines()
    assert cpp[:3] == ["#include <cassert>", '#line 1 "program.cpp"', "one"]
    assert cpp[4:7] == ["#undef NDEBUG", "#include <cassert>", '#line 3 "program.cpp"']
    everything = in_cpp("#include<bits/stdc++.h>", "int main() { assert(x); }", SECRET).source
    assert everything.startswith("#include <bits/stdc++.h>\n")
    assert "cassert" not in in_cpp("p", "int main() { check(x); }", SECRET).source
