"""Compilers are fed by strangers too: bombs meet limits, files stay unread, and no program gets another's build."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engine.sandbox import File, Limits, Pool, Program
from engine.sandbox.foreign.languages import LANGUAGES
from engine.sandbox.foreign.toolchain import languages, toolchain_of

FAIR = Limits(cpu_seconds=5, wall_seconds=20, memory_mb=512)
MISSING = {name: found.missing for name, found in languages().items()}
REFUSED = {"compile_error", "cpu_limit", "wall_limit", "memory_limit", "output_limit", "disk_limit"}

BOMBS = {
    "endless file": ("cpp", '#include "/dev/zero"\nint main() {}'),
    "endless template": (
        "cpp",
        "template<int N> struct S { S<N + 1> s; int f() { return s.f(); } };\nint main() { return S<0>().f(); }",
    ),
    "templates by powers": (
        "cpp",
        "template<int N, int M> struct S { static const int v = S<N - 1, 2 * M>::v + S<N - 1, 2 * M + 1>::v; };\n"
        "template<int M> struct S<0, M> { static const int v = M; };\nint main() { return S<24, 0>::v; }",
    ),
    "endless constexpr": (
        "cpp",
        "constexpr long f() { long s = 0; for (long i = 0; i < 1L << 60; i++) s += i; return s; }\n"
        "constexpr long v = f();\nint main() {}",
    ),
    "four gigabytes of data": ("cpp", "char all[1L << 32] = {1};\nint main() { return all[5]; }"),
    "macros by powers": (
        "cpp",
        "".join(f"#define m{n} m{n - 1} m{n - 1} m{n - 1} m{n - 1}\n" for n in range(1, 16))
        + "#define m0 0,\nint all[] = { m15 };\nint main() {}",
    ),
    "includes itself": ("cpp", "#include __FILE__\n#include __FILE__\nint main() {}"),
    "endless macro": ("rust", "macro_rules! m { ($($t:tt)*) => { m!($($t)* x) } }\nfn main() { m!(x) }"),
    "macro by powers": (
        "rust",
        "macro_rules! m { ($($t:tt)*) => { m!($($t)* $($t)*) } }\nfn main() { m!(x) }",
    ),
    "endless const": (
        "rust",
        'const V: u64 = { let mut i = 0; loop { i += 1; } };\nfn main() { println!("{}", V) }',
    ),
    "endless type": (
        "rust",
        "fn f<T: Copy>(t: T, n: u64) { if n > 0 { f((t, t), n - 1) } }\nfn main() { f(1u8, 99) }",
    ),
    "endless constants": (
        "java",
        'class Main {\n  static final String s0 = "xxxxxxxxxxxxxxxx";\n'
        + "".join(f"  static final String s{n} = s{n - 1} + s{n - 1};\n" for n in range(1, 40))
        + "  public static void main(String[] a) { System.out.println(s39.length()); }\n}",
    ),
    "deep java": (
        "java",
        f"class Main {{ public static void main(String[] a) {{ int x = {'(' * 20000}1{')' * 20000}; }} }}",
    ),
    "endless ts type": (
        "typescript",
        "type T<N extends any[]> = N['length'] extends 1e9 ? N : T<[...N, any]>;\nlet x: T<[]> = 1 as any;\n"
        "type P<N extends number[]> = N extends [infer A, ...infer R] ? [A, ...R, ...R] : never;\nlet y: string = x;",
    ),
    "four gigabytes of go": (
        "go",
        "package main\nvar all = [1 << 32]byte{1}\nfunc main() { println(all[5]) }",
    ),
    "endless go type": (
        "go",
        "package main\ntype a struct { b [1 << 20]struct { c [1 << 20]struct { d [1 << 20]int } } }\n"
        "func main() { var x a; println(x) }",
    ),
}


def _bombs() -> list[object]:
    return [
        pytest.param(
            language,
            source,
            id=name,
            marks=pytest.mark.skipif(bool(MISSING[language]), reason=MISSING[language]),
        )
        for name, (language, source) in BOMBS.items()
    ]


def _below(pool: Pool) -> list[str]:
    """The names of all processes below the pool's workers."""
    names, waiting = [], [process.process.pid for process in pool._processes]
    while waiting:
        for file in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                waiting.append(child)
                names.append(Path(f"/proc/{child}/comm").read_text().strip())
    return names


@pytest.mark.parametrize(("language", "source"), _bombs())
def test_a_bomb_for_a_compiler_ends_within_its_limits(
    best: Pool, language: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = LANGUAGES[language]
    limits = replace(row.limits, cpu_seconds=1.5, wall_seconds=5, memory_mb=768, disk_mb=64)
    monkeypatch.setitem(LANGUAGES, language, replace(row, limits=limits))
    verdict = best.run(Program(source, language=language), FAIR)
    assert verdict.name in REFUSED, verdict
    assert verdict.detail and not verdict.files
    assert verdict.cpu_seconds < 4
    assert all(name.startswith("python") for name in _below(best)), _below(best)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "source"), _bombs())
def test_a_bomb_ends_within_the_limits_compilers_really_have(best: Pool, language: str, source: str) -> None:
    verdict = best.run(Program(source, language=language), FAIR)
    assert verdict.name in REFUSED, verdict
    assert all(name.startswith("python") for name in _below(best)), _below(best)


def needs(language: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(MISSING[language]), reason=MISSING[language])


@pytest.mark.parametrize(
    ("language", "source"),
    [
        pytest.param("cpp", '#include "/etc/shadow"\nint main() {}', marks=needs("cpp")),
        pytest.param("cpp", 'asm(".incbin \\"{secret}\\"");\nint main() {}', marks=needs("cpp")),
        pytest.param("rust", 'fn main() { print!("{}", include_str!("{secret}")); }', marks=needs("rust")),
        pytest.param(
            "go",
            'package main\nimport _ "embed"\n//go:embed {secret}\nvar s string\nfunc main() { print(s) }',
            marks=needs("go"),
        ),
    ],
)
def test_a_compiler_reads_no_file_of_the_host(best: Pool, language: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t")
    program = Program(source.replace("{secret}", str(tmp_path / "secret")), language=language)
    verdict = best.run(program, FAIR)
    assert verdict.name == "compile_error", verdict
    assert "s3cr3t" not in verdict.stdout + verdict.stderr


@needs("cpp")
def test_programs_of_one_name_never_get_each_others_build(best: Pool) -> None:
    def word(n: int) -> str:
        source = f'#include <cstdio>\nint main() {{ std::puts("{n % 4}"); }}'
        return best.run(Program(source, language="cpp"), FAIR).stdout

    before = best._foreign.builds.made
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(word, range(16))) == [f"{n % 4}\n" for n in range(16)]
    assert best._foreign.builds.made == before + 4


@needs("cpp")
def test_a_program_cannot_change_its_own_build(best: Pool) -> None:
    source = """
#include <cstdio>
#include <fstream>
#include <sys/stat.h>
int main() {
  std::puts("honest");
  std::remove("program");
  std::ofstream("program") << "#!/bin/sh\\necho poisoned\\n";
  chmod("program", 0755);
  std::rename("program.cpp", "other.cpp");
}
"""
    program = Program(source, language="cpp", collect=("program",))
    for _ in range(3):
        verdict = best.run(program, FAIR)
        assert verdict.stdout == "honest\n"
        assert b"poisoned" in verdict.files[0].data


@needs("cpp")
def test_files_given_with_a_program_do_not_replace_it(best: Pool) -> None:
    files = (
        File("program", b"#!/bin/sh\necho poisoned\n", executable=True),
        File("program.cpp", b'#include <cstdio>\nint main() { std::puts("poisoned"); }'),
        File("word.h", b'#define WORD "first"'),
    )
    program = Program(
        '#include <cstdio>\n#include "word.h"\nint main() { std::puts(WORD); }', language="cpp", files=files
    )
    assert best.run(program, FAIR).stdout == "first\n"
    other = replace(program, files=(File("word.h", b'#define WORD "second"'),))
    assert best.run(other, FAIR).stdout == "second\n"


@needs("cpp")
def test_the_prepared_header_is_used_and_changes_nothing(best: Pool) -> None:
    assert (Path(toolchain_of("cpp").stock) / "bits/stdc++.h.gch").stat().st_size > 1 << 20
    source = "#include<assert.h>\n#include<bits/stdc++.h>\nlong add(long x, long y) {\n    return x + y;\n"
    test = "}\nint main() {\n    auto candidate = add;\n    assert(candidate(2, 3) == WANTED);\n}\n"
    for wanted, name in (("5", "passed"), ("6", "wrong")):
        program = Program(source, test=test.replace("WANTED", wanted), language="cpp")
        verdict = best.run(program, FAIR)
        assert verdict.name == name, verdict
    assert "program.cpp:9: int main(): Assertion" in verdict.detail
