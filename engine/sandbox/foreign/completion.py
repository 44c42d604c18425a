"""How a test of another language tells that it came to its end: a secret written to descriptor 3 after the last check.

An exit code of 0 says only that the process left. The test stands behind the program, in one process with it, so a
program written against this very module could find the secret and write it early; leaving early, the common cheat,
makes none. What a program can take from its test by a line or two (assert, set -e, the test runner's own flags) is
given back to the test where the language has the means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..verdict import File

_TRAILING = re.compile(r"(?:\s*\n[ \t]*//[^\n]*)*\s*\Z")
"""Lines of comment behind the last brace, which may have braces of their own."""
_LAST_WORDS = ("return 0;", "Ok(())", "System.exit(0);")
"""How a main may end: nothing behind these would be reached, or compiled."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A program with its test behind it."""

    source: str
    files: tuple[File, ...] = ()
    """Further sources to be compiled with it."""


_LAST_CALL = re.compile(
    r"^(?:await |void )?(?:(?!(?:if|for|while|switch|with|function|return|throw)\b)[\w.$]+\((?:(?!//)[^\n;])*\)"
    r"|\(async\b[^\n]*\n(?:[ \t][^\n]*\n|\n)*\}\)\(\));?\Z",
    re.MULTILINE,
)
"""A JavaScript test's last statement where it is one call at the start of a line, as `test();`, or an async function
called where it stands."""
_UNENDED = re.compile(r"[=(,+\-*/&|?:<>.\[]\s*\Z")
"""A line that goes on in the next one."""

Completion = Callable[[str, str, str], Tested]
"""From source, test and secret; the secret is letters and digits."""


def append(statement: str) -> Completion:
    """For languages that run from top to bottom; `SECRET` stands for the secret."""
    return lambda source, test, secret: Tested(f"{source}\n{test}\n{statement.replace('SECRET', secret)}\n")


def in_javascript(source: str, test: str, secret: str) -> Tested:
    """When nothing is left to be done, and not before the test's last call has been: a promise may never be kept."""
    record = f"import('node:fs').then(fs => fs.writeSync(3, '{secret}'))"
    tell = f"eval(\"globalThis.process.once('beforeExit', () => {record})\")"
    text = test.rstrip()
    last = _LAST_CALL.search(text)
    if not last or _UNENDED.search(text, 0, last.start()):
        return Tested(f"{source}\n{test}\n;{tell};\n")
    call = last[0].removesuffix(";").removeprefix("void ")
    return Tested(f"{source}\n{text[: last.start()]};Promise.resolve({call}).then(() => {tell});\n")


def in_bash(source: str, test: str, secret: str) -> Tested:
    """A function of the program's may be named as a builtin; one named `builtin` only keeps the secret unwritten."""
    test = re.sub(r"^([ \t]*)set -", r"\1builtin set -", test, flags=re.MULTILINE)
    return append("builtin printf %s SECRET >&3")(source, test, secret)


def in_cpp(source: str, test: str, secret: str) -> Tested:
    """The header defines assert anew each time it is included, whatever a program has made of it.

    The header of all headers comes first where it is used, since only there the compiler can take it prepared.
    """
    first = second = ""
    if re.search(r"\bassert\s*\(", test):
        everything = re.search(r"^[ \t]*#[ \t]*include[ \t]*<bits/stdc\+\+\.h>", source, re.MULTILINE)
        first = f'#include <{"bits/stdc++.h" if everything else "cassert"}>\n#line 1 "program.cpp"\n'
        second = f'#undef NDEBUG\n#include <cassert>\n#line {source.count(chr(10)) + 2} "program.cpp"\n'
    tell = (
        '{ long record_SECRET(int, const void *, unsigned long) __asm__("write");'
        ' (void)record_SECRET(3, "SECRET", sizeof "SECRET" - 1); }'
    )
    return before_brace(tell)(f"{first}{source}", f"{second}{test}", secret)


def in_rust(source: str, test: str, secret: str) -> Tested:
    """With the standard library's own assertions, not a program's macros of that name."""
    if "macro_rules!" not in test:
        test = re.sub(r"(?<![:\w])(assert(?:_eq|_ne)?!)", r"::std::\1", test)
    return before_brace('; ::std::fs::write("/dev/fd/3", "SECRET").unwrap();')(source, test, secret)


def before_brace(statement: str, braces: int = 1) -> Completion:
    """For languages with a main, which must be the last function: the last brace, or the one before it, closes it."""

    def put_in(source: str, test: str, secret: str) -> Tested:
        return Tested(_put_before(f"{source}\n{test}", statement.replace("SECRET", secret), braces))

    return put_in


def _put_before(text: str, statement: str, braces: int) -> str:
    place = _TRAILING.search(text).start()  # type: ignore[union-attr]  # it can be empty, so it is always found
    for _ in range(braces):
        place = text.rfind("}", 0, place)
    if place < 0:
        return text  # no main: the compiler will say so
    body = text[:place].rstrip()
    for words in _LAST_WORDS:
        if body.endswith(words):
            place = len(body) - len(words)
    return f"{text[:place]} {statement} {text[place:]}"


def in_lua(source: str, test: str, secret: str) -> Tested:
    """A luaunit test leaves by os.exit with the number of its failures, so the secret must be written before that."""
    if "luaunit" in test:
        test = f"package.loaded.luaunit, package.preload.luaunit = nil, nil; {test}"
    tell = f'do local record = io.open("/dev/fd/3", "w"); record:write("{secret}"); record:close() end'
    text = f"{source}\n{test}".rstrip()
    body, _, last = text.rpartition("\n")
    leaving = re.fullmatch(r"\s*os\.exit\((.*)\)[\s;]*", last)
    if not leaving:
        return Tested(f"{text}\n{tell}\n")
    end = f"end_{secret}"
    return Tested(
        f"{body}\nlocal {end} = {leaving[1]}; if {end} == 0 or {end} == true then {tell} end; os.exit({end})\n"
    )


def in_go(source: str, test: str, secret: str) -> Tested:
    """A further file of the same package, since a file's imports stand at its top; it wraps the tests, or is called."""
    text = f"{source}\n{test}"
    name = re.search(r"^package[ \t]+(\w+)", text, re.MULTILINE)
    package = f"package {name[1] if name else 'main'}\n"
    tell = f'os.NewFile(3, "record").WriteString("{secret}")'
    if is_go_test(text):
        # its variables come before all others, by its name: the flags are those it was started with
        args = f"var args{secret} = append([]string(nil), os.Args...)"
        flags = (
            f'os.Args = args{secret}; flag.Parse(); for _, f := range []string{{"run", "skip", "list"}} {{ '
        )
        flags += 'if f := flag.Lookup("test." + f); f != nil { f.Value.Set("") } }'
        main = f"{flags}; code := m.Run(); if code == 0 {{ {tell} }}; os.Exit(code)"
        record = (
            f'{package}import ("flag"; "os"; "testing")\n{args}\nfunc TestMain(m *testing.M) {{ {main} }}\n'
        )
        return Tested(text, (File("a_record_test.go", record.encode()),))
    record = f'{package}import "os"\nfunc record{secret}() {{ {tell} }}\n'
    return Tested(_put_before(text, f"; record{secret}();", 1), (File("record.go", record.encode()),))


def is_go_test(source: str) -> bool:
    """Whether a source is one for `go test`, which has functions for tests and no main."""
    return re.search(r"^func Test\w*\(\w+ \*testing\.T\)", source, re.MULTILINE) is not None
