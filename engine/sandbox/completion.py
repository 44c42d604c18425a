"""How a test of another language tells that it came to its end: a secret written to descriptor 3 after the last check.

An exit code of 0 says only that the process left. The test stands behind the program, in one process with it, so a
program written against this very module could find the secret and write it early; leaving early, the common cheat,
makes none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .verdict import File

_LAST_WORDS = ("return 0;", "Ok(())", "System.exit(0);")
"""How a main may end: nothing behind these would be reached, or compiled."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A program with its test behind it."""

    source: str
    files: tuple[File, ...] = ()
    """Further sources to be compiled with it."""


Completion = Callable[[str, str, str], Tested]
"""From source, test and secret; the secret is letters and digits."""


def append(statement: str) -> Completion:
    """For languages that run from top to bottom; `SECRET` stands for the secret."""
    return lambda source, test, secret: Tested(f"{source}\n{test}\n{statement.replace('SECRET', secret)}\n")


def before_brace(statement: str, braces: int = 1) -> Completion:
    """For languages with a main, which must be the last function: the last brace, or the one before it, closes it."""

    def put_in(source: str, test: str, secret: str) -> Tested:
        return Tested(_put_before(f"{source}\n{test}", statement.replace("SECRET", secret), braces))

    return put_in


def _put_before(text: str, statement: str, braces: int) -> str:
    place = len(text)
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
        main = f"code := m.Run(); if code == 0 {{ {tell} }}; os.Exit(code)"
        record = f'{package}import ("os"; "testing")\nfunc TestMain(m *testing.M) {{ {main} }}\n'
        return Tested(text, (File("record_test.go", record.encode()),))
    record = f'{package}import "os"\nfunc record{secret}() {{ {tell} }}\n'
    return Tested(_put_before(text, f"; record{secret}();", 1), (File("record.go", record.encode()),))


def is_go_test(source: str) -> bool:
    """Whether a source is one for `go test`, which has functions for tests and no main."""
    return re.search(r"^func Test\w*\(\w+ \*testing\.T\)", source, re.MULTILINE) is not None
