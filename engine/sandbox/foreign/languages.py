"""The languages besides Python: one row each, so that a new one is a few lines here and nothing elsewhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

from ...errors import WishError
from ..verdict import File, Limits
from .completion import (
    Completion,
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

_COMPILER = Limits(
    cpu_seconds=30.0, wall_seconds=90.0, memory_mb=2048, output_kb=64, processes=128, disk_mb=512
)


@dataclass(frozen=True, slots=True)
class Signs:
    """What a failed program's last words are searched for: its language's own messages, as regular expressions.

    The line a message begins in is shown, or only what is in a pattern's groups, where it has any.
    """

    wrong: str = ""
    """An assertion that does not hold; asked only where there is a test."""
    memory: str = ""
    """The run time gave out, at a limit of its own below the program's."""
    unreadable: str = ""
    """The source was refused before it ran, for languages without a compiler."""
    wrong_code: int | None = None
    """The exit code that means a failed test where tests of the language say no word."""
    complaint: str = ""
    """What the compiler says of a program it refuses; else the first line with the word error."""
    died: str = ""
    """What is said of an error that ended the program; else the first line that sounds like one."""


@dataclass(frozen=True, slots=True)
class Language:
    """One language. In `run`, `compile` and `environment` a name in braces stands for a tool's path or a value."""

    source: str
    """The name a program's source is laid down under."""
    suffixes: tuple[str, ...]
    """By which files of it are known."""
    tools: dict[str, tuple[str, ...]]
    """Commands it needs, each with the names it may go by."""
    install: str
    """What to install where they are missing."""
    run: tuple[str, ...]
    completion: Completion
    signs: Signs
    compile: tuple[str, ...] = ()
    built: tuple[str, ...] = ()
    """What compiling leaves; only this comes out of the compiler's jail."""
    version: tuple[str, ...] = ("--version",)
    root: tuple[str, ...] = ()
    """Asks the first tool where it is really installed, for one that is only a shim."""
    folders: tuple[str, ...] = ()
    """Folders (glob patterns) its tools read besides their own."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of its compiler."""
    stock: tuple[str, ...] = ()
    """Compiles the standard library into the folder {stock}, once for all programs; no program is in this."""
    processes: int = 1
    """Processes and threads the run time needs for itself: a program's limit is never below it."""
    values: Callable[[str], dict[str, str]] = lambda source: {}
    """Further values for the braces, found in the source; `source` among them renames the file."""
    beside: Callable[[str], tuple[File, ...]] = lambda source: ()
    """Files to be compiled with a source."""
    limits: Limits = _COMPILER
    """Of its compiler."""


def find(name: str) -> Language:
    """The row of `name`. Raises WishError for a language that is not in the table."""
    if name in LANGUAGES:
        return LANGUAGES[name]
    near = difflib.get_close_matches(name, ["python", *LANGUAGES], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise WishError(f"there is no language {name!r}", f"{hint}use one of {', '.join(['python', *LANGUAGES])}")


def language_of(file: PurePath) -> str:
    """The language a file is written in, by its suffix; one without is Python. Raises WishError for any other."""
    suffix = file.suffix.lower()
    if suffix in ("", ".py"):
        return "python"
    for name, row in LANGUAGES.items():
        if suffix in row.suffixes:
            return name
    raise WishError(
        f"no language that is run here has files that end in {suffix!r}, as {file} does",
        f"name one of {', '.join(['python', *LANGUAGES])} (--language)",
    )


def _javascript(source: str) -> dict[str, str]:
    """A source with imports is a module, which node knows by the file's name."""
    module = re.search(r"^[ \t]*(?:import\b[^(.\n]*['\"{*]|export\b)", source, re.MULTILINE)
    return {"source": "program.mjs"} if module and "require(" not in source else {}


_NODE_NAMES = (
    *("require", "process", "Buffer", "console", "global", "__dirname", "__filename", "URL", "TextEncoder"),
    *("TextDecoder", "setTimeout", "clearTimeout", "setInterval", "clearInterval", "setImmediate"),
    *("queueMicrotask", "structuredClone", "performance"),
)


def _typescript(source: str) -> tuple[File, ...]:
    """Node's own names, untyped, so that programs need no further package; what the source declares is its own."""
    names = [
        n for n in _NODE_NAMES if not re.search(rf"\b(?:const|let|var|function|class)[ \t]+{n}\b", source)
    ]
    lines = [*(f"declare var {name}: any;" for name in names), 'declare module "*";']
    return (File("node.d.ts", "\n".join(lines).encode()),)


_JAVA_ASIDE = re.compile(
    r'//[^\n]*|/\*.*?(?:\*/|\Z)|"""(?:\\.|[^\\])*?(?:"""|\Z)|"(?:\\.|[^"\\\n])*"?|\'(?:\\.|[^\'\\\n])*\'?',
    re.DOTALL,
)
_JAVA_MARK = re.compile(r"[{}]|\b(?:class|interface|enum|record)[ \t]+(\w+)|\bvoid[ \t]+main[ \t]*\(")


def _java(source: str) -> dict[str, str]:
    """The class that has main, and the file name a public class demands."""
    text = _JAVA_ASIDE.sub(" ", source)
    public = re.search(r"^public[^\n{(;]*\b(?:class|interface|enum|record)[ \t]+(\w+)", text, re.MULTILINE)
    package = re.search(r"^[ \t]*package[ \t]+([\w.]+)", text, re.MULTILINE)
    depth, main = 0, public[1] if public else "Main"
    holder = main
    for mark in _JAVA_MARK.finditer(text):
        if mark[0] in "{}":
            depth += 1 if mark[0] == "{" else -1
        elif mark[1] and depth == 0:
            holder = mark[1]
        elif not mark[1]:
            main = holder
            break
    prefix = f"{package[1]}." if package else ""
    return {"source": f"{public[1] if public else 'Main'}.java", "main": prefix + main}


def _go(source: str) -> dict[str, str]:
    """Tests are built by another verb than programs, under a name that says so."""
    if is_go_test(source):
        return {"source": "program_test.go", "verb": "test", "mode": "-c"}
    return {"verb": "build", "mode": "-p=2"}


_JS_SIGNS = Signs(
    wrong=(
        r"(?m)^(?:Uncaught )?(AssertionError[^\n]*)"
        r"(?:[^\0]*?\n +(actual: [^\n]*[^\[{\n]),\n +(expected: [^\n]*[^\[{\n]),\n)?"
    ),
    memory=r"JavaScript heap out of memory|Array buffer allocation failed",
    unreadable=(
        r"(program\.m?js:\d+)\n[^\0]*?(SyntaxError: [^\n]*)"
        r"\n +at (?:wrapSafe|internalCompile|compileSource|compileFunction|new Script)"
    ),
)
_NODE = ("{node}", "--max-old-space-size={heap_mb}")
_SMALL_JVM = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto")
_JAVAC = ("{javac}", "-J-Xmx1g", "-J-XX:TieredStopAtLevel=1", *(f"-J{flag}" for flag in _SMALL_JVM))
_GXX = ("{g++}", "-std=c++17", "-O1", "-pthread", "-I{stock}")
_GO_STOCK = (
    *("bufio", "bytes", "cmp", "container/heap", "container/list", "container/ring", "context", "crypto/md5"),
    *("crypto/sha256", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash/fnv", "io"),
    *(
        "log",
        "maps",
        "math",
        "math/big",
        "math/bits",
        "math/cmplx",
        "math/rand",
        "os",
        "os/signal",
        "reflect",
    ),
    *("regexp", "runtime/debug", "slices", "sort", "strconv", "strings", "sync", "sync/atomic", "testing"),
    *("testing/internal/testdeps", "text/tabwriter", "time", "unicode", "unicode/utf8"),
)

LANGUAGES: dict[str, Language] = {
    "javascript": Language(
        source="program.js",
        suffixes=(".js", ".mjs", ".cjs"),
        tools={"node": ("node", "nodejs")},
        install="Node.js (Debian: nodejs)",
        run=(*_NODE, "{source}"),
        completion=in_javascript,
        signs=_JS_SIGNS,
        folders=("/usr/share/nodejs",),
        processes=16,
        values=_javascript,
    ),
    "typescript": Language(
        source="program.ts",
        suffixes=(".ts", ".mts", ".cts"),
        tools={"tsc": ("tsc",), "node": ("node", "nodejs")},
        install="TypeScript (npm install --global typescript)",
        compile=(
            *("{node}", "{tsc}", "--target", "es2022", "--lib", "esnext", "--module", "commonjs"),
            *("--esModuleInterop", "--strict", "false", "{source}", "node.d.ts"),
        ),
        built=("program.js",),
        run=(*_NODE, "program.js"),
        completion=in_javascript,
        signs=_JS_SIGNS,
        folders=("/usr/share/nodejs",),
        processes=16,
        beside=_typescript,
    ),
    "cpp": Language(
        source="program.cpp",
        suffixes=(".cpp", ".cc", ".cxx"),
        tools={"g++": ("g++", "c++")},
        install="GCC's C++ compiler (Debian: g++)",
        compile=(*_GXX, "-o", "program", "{source}"),
        built=("program",),
        run=("./program",),
        completion=in_cpp,
        signs=Signs(
            wrong=r"Assertion [^\n]* failed\.",
            memory=r"std::bad_alloc",
            complaint=r"(?m)^[^\s:]+:\d+:\d+: (?:fatal )?error: ",
            died=r"(terminate called [^\n]*)(?:\n *(what\(\):[^\n]*))?",
        ),
        folders=("/usr/include", "/usr/libexec/gcc"),
        # the header that includes all others, which the compiler reads in a fifth of the time when it is prepared
        stock=(
            *("/bin/sh", "-ec"),
            'mkdir "$1/bits"; cd "$1/bits"; echo "#include_next <bits/stdc++.h>" > stdc++.h; shift; '
            'exec "$@" -x c++-header -o stdc++.h.gch stdc++.h',
            *("sh", "{stock}", *_GXX),
        ),
    ),
    "java": Language(
        source="Main.java",
        suffixes=(".java",),
        tools={"javac": ("javac",), "java": ("java",)},
        install="a JDK (Debian: default-jdk-headless)",
        compile=(
            # an archive, since nobody knows beforehand which classes there will be
            *(
                "/bin/sh",
                "-ec",
                'mkdir out; "$@"; cd out; exec {python} -ISm zipfile -c ../program.jar *',
                "sh",
            ),
            *(*_JAVAC, "-proc:none", "-encoding", "UTF-8", "-d", "out", "-cp", ".:*", "{source}"),
        ),
        built=("program.jar",),
        run=("{java}", "-Xmx{heap_mb}m", "-ea", *_SMALL_JVM, "-cp", "program.jar:.:*", "{main}"),
        completion=before_brace(
            'try (var record_SECRET = new java.io.FileOutputStream("/dev/fd/3")) '
            '{ record_SECRET.write("SECRET".getBytes()); } '
            "catch (java.io.IOException record_SECRET) { throw new RuntimeException(record_SECRET); }",
            braces=2,
        ),
        signs=Signs(
            wrong=r"java\.lang\.AssertionError",
            memory=r"java\.lang\.OutOfMemoryError: (?!unable to create)|insufficient memory for the Java Run",
            complaint=r"(?m)^[^\s:]+\.java:\d+: error: |java\.lang\.\w+Error",
        ),
        folders=("/etc/java-*",),
        processes=32,
        values=_java,
    ),
    "rust": Language(
        source="program.rs",
        suffixes=(".rs",),
        tools={"rustc": ("rustc",), "cc": ("cc", "gcc", "clang")},
        install="Rust (https://rustup.rs) and a C linker (Debian: gcc)",
        compile=(
            *("{rustc}", "--edition", "2021", "-C", "opt-level=1", "-C", "debug-assertions=yes"),
            *(
                "-C",
                "strip=symbols",
                "-C",
                "codegen-units=1",
                "-C",
                "linker={cc}",
                "-o",
                "program",
                "{source}",
            ),
        ),
        built=("program",),
        run=("./program",),
        completion=in_rust,
        signs=Signs(
            wrong=r"assertion [^\n]*failed",
            memory=r"memory allocation of \d+ bytes failed",
            complaint=r"(?m)^(error[^\n]*)\n +--> ([^\n]*)",
            died=r"(panicked at [^\n:]*:\d+:\d+):\n([^\n]*)",
        ),
        root=("--print", "sysroot"),
    ),
    "go": Language(
        source="program.go",
        suffixes=(".go",),
        tools={"go": ("go",)},
        install="Go (Debian: golang-go)",
        compile=("{go}", "{verb}", "{mode}", "-ldflags=-s -w", "-o", "program", "."),
        built=("program",),
        run=("./program",),
        completion=in_go,
        signs=Signs(wrong=r"--- FAIL", memory=r"fatal error: [^\n]*(?:out of memory|cannot allocate)"),
        version=("version",),
        root=("env", "GOROOT"),
        folders=("/usr/share/go-*",),
        environment={
            **{"CGO_ENABLED": "0", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOTELEMETRY": "off"},
            **{"GOFLAGS": "-buildvcs=false -vet=off", "GOPATH": "/tmp/go", "GOCACHE": "{stock}"},
        },
        stock=("{go}", "list", "-e", "-export", *_GO_STOCK),
        processes=16,
        values=_go,
    ),
    "bash": Language(
        source="program.sh",
        suffixes=(".sh", ".bash"),
        tools={"bash": ("bash",)},
        install="bash",
        run=("{bash}", "{source}"),
        completion=in_bash,
        signs=Signs(wrong_code=1, unreadable=r"program\.sh: line \d+: syntax error"),
    ),
    "perl": Language(
        source="program.pl",
        suffixes=(".pl",),
        tools={"perl": ("perl",)},
        install="Perl (Debian: perl)",
        run=("{perl}", "-I.", "{source}"),
        completion=append(';open(my $record_SECRET, ">&=", 3); syswrite($record_SECRET, "SECRET");'),
        signs=Signs(
            wrong_code=1,
            memory=r"Out of memory",
            unreadable=r"program\.pl (?:aborted due to|had) compilation errors|syntax error at program\.pl",
        ),
        folders=("/usr/share/perl", "/usr/share/perl5", "/usr/local/share/perl", "/etc/perl"),
    ),
    "lua": Language(
        source="program.lua",
        suffixes=(".lua",),
        tools={"lua": ("lua5.4", "lua", "lua5.3")},
        install="Lua (Debian: lua5.4)",
        run=("{lua}", "{source}"),
        completion=in_lua,
        signs=Signs(
            wrong=(
                r"\d+\) \w+\n([^\n]*)(?=[^\0]*\nRan \d+ tests [^\n]*[1-9]\d* failure)"
                r"|(Ran \d+ tests [^\n]*[1-9]\d* failure[^\n]*)"
            ),
            memory=r"not enough memory",
            unreadable=r"\A\S*lua\S*: program\.lua:\d+: (?![^\0]*stack traceback)",
            died=r"lua[\d.]*: ([^\n]*)|\d+\) \w+\n([^\n]*)",
        ),
        version=("-v",),
        folders=("/usr/share/lua", "/usr/local/share/lua"),
    ),
}
"""By the names a `Program` may give as its language."""
