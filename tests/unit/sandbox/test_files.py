"""Arguments and files: what goes in, what comes back, and what must not."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import WishError
from engine.sandbox import Call, File, Limits, Pool, Program

from .conftest import QUICK


def test_a_script_finds_its_arguments_and_files(pool: Pool) -> None:
    source = (
        "import sys, os\nassert sys.argv[1:] == ['a', 'b c'], sys.argv\n"
        "assert open('in/data.txt').read() == 'x'\nassert os.access('tool', os.X_OK)\n"
        "import helper\nassert helper.y == 2\nassert open(__file__).read().startswith('import sys')\n"
        "open('out.txt', 'w').write('done')\n"
    )
    files = (File("in/data.txt", b"x"), File("helper.py", b"y = 2"), File("tool", b"#!", executable=True))
    program = Program(source, arguments=("a", "b c"), files=files, collect=("out.txt", "missing.txt"))
    verdict = pool.run(program, QUICK)
    assert verdict.passed, verdict
    assert verdict.files == (File("out.txt", b"done"),)
    assert pool.run(Program("import os\nassert os.listdir() == ['program.py']"), QUICK).passed


def test_links_pipes_and_folders_are_not_collected(pool: Pool) -> None:
    source = (
        "import os\nopen('real', 'w').write('r')\nos.makedirs('d/e')\nos.symlink('/etc/passwd', 'link')\n"
        "os.symlink('/etc', 'd/etc')\nos.symlink('real', 'inner')\n"
        "try: os.mkfifo('pipe')\nexcept OSError: pass\nos.link('real', 'hard')\n"
    )
    names = ("real", "link", "d/etc/passwd", "inner", "pipe", "d", "hard")
    verdict = pool.run(Program(source, collect=names), QUICK)
    assert verdict.passed, verdict
    assert {file.name for file in verdict.files} == {"real", "hard"}


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b", "x" * 600])
def test_a_name_that_leads_out_is_refused(best: Pool, name: str) -> None:
    with pytest.raises(WishError, match="may not be named"):
        best.run(Program("x = 1", collect=(name,)), QUICK)
    with pytest.raises(WishError, match="may not be named"):
        best.run(Program("x = 1", files=(File(name, b""),)), QUICK)


def test_what_is_collected_is_bounded(best: Pool) -> None:
    limits = Limits(disk_mb=100, memory_mb=512)
    source = "for n in 'ab': open(n, 'wb').write(bytes(40 << 20))"
    verdict = best.run(Program(source, collect=("a", "b")), limits)
    assert verdict.passed, verdict
    assert [len(file.data) for file in verdict.files] == [40 << 20]
    with pytest.raises(WishError, match="at most 64"):
        best.run(Program("", collect=tuple(map(str, range(65)))), QUICK)


def test_the_async_doors_give_what_the_others_give(best: Pool) -> None:
    programs = [
        Program(f"def f(x): return x + {i % 2}", calls=(Call("f(1)", 1), Call("f(2)", 2))) for i in range(40)
    ]

    async def names() -> tuple[str, list[str]]:
        one = await best.run_async(programs[1], QUICK)
        return one.name, [verdict.name async for verdict in best.stream(programs, QUICK)]

    assert asyncio.run(names()) == ("wrong", ["passed", "wrong"] * 20)


def test_a_stream_that_is_left_early_leaves_the_pool_usable(best: Pool) -> None:
    async def first() -> str:
        async for verdict in best.stream((Program("x = 1") for _ in range(1000)), QUICK):
            return verdict.name
        return ""

    assert asyncio.run(first()) == "passed"
    assert best.run(Program("x = 1"), QUICK).passed


def test_files_beyond_the_disk_are_a_disk_limit(best: Pool) -> None:
    verdict = best.run(Program("x = 1", files=(File("big", bytes(20 << 20)),)), Limits(disk_mb=8))
    assert verdict.name == "disk_limit", verdict
