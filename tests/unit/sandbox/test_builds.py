"""What is kept of compilers: one make for all who ask, nothing that is equal only at a glance, and a bound."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.sandbox.foreign.builds import Builds, key_of
from engine.sandbox.verdict import File, Verdict


def built(size: int, name: str = "passed") -> Verdict:
    return Verdict(name, files=(File("program", bytes(size)),) if size else ())


def test_what_is_kept_is_not_made_again() -> None:
    builds = Builds()
    first = builds.get(b"a", lambda: built(1))
    assert builds.get(b"a", lambda: built(2)) is first
    assert builds.get(b"b", lambda: built(2)) is not first
    assert builds.made == 2


def test_of_many_who_ask_at_a_time_one_makes() -> None:
    builds, makers = Builds(), []

    def make() -> Verdict:
        makers.append(threading.get_ident())
        time.sleep(0.05)
        return built(1)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: builds.get(b"a", make), range(8)))
    assert len(makers) == builds.made == 1
    assert all(result is results[0] for result in results)


def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    builds, started = Builds(), threading.Event()

    def fail() -> Verdict:
        started.set()
        time.sleep(0.05)
        raise OSError("the jail is gone")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(builds.get, b"a", fail)
        started.wait()
        second = threads.submit(builds.get, b"a", fail)
        for waiting in (first, second):
            with pytest.raises(OSError, match="the jail is gone"):
                waiting.result()
    assert builds.get(b"a", lambda: built(1)).passed


@pytest.mark.parametrize("name", ["infra", "wall_limit"])
def test_what_another_try_may_not_meet_is_not_kept(name: str) -> None:
    builds = Builds()
    assert builds.get(b"a", lambda: built(0, name)).name == name
    assert builds.get(b"a", lambda: built(1)).passed


@pytest.mark.parametrize("name", ["compile_error", "cpu_limit", "memory_limit"])
def test_a_refusal_is_kept_like_a_build(name: str) -> None:
    builds = Builds()
    builds.get(b"a", lambda: built(0, name))
    assert builds.get(b"a", lambda: built(1)).name == name


def test_the_least_recently_used_goes_first() -> None:
    builds = Builds(most_bytes=3 * 5000)
    for key in (b"a", b"b"):
        builds.get(key, lambda: built(4000))
    builds.get(b"a", lambda: built(1))
    builds.get(b"c", lambda: built(4000))
    builds.get(b"d", lambda: built(4000))
    made = builds.made
    builds.get(b"a", lambda: built(4000))
    assert builds.made == made
    builds.get(b"b", lambda: built(4000))
    assert builds.made == made + 1


def test_what_is_larger_than_all_room_is_given_but_not_kept() -> None:
    builds = Builds(most_bytes=5000)
    builds.get(b"small", lambda: built(1))
    assert len(builds.get(b"large", lambda: built(9000)).files[0].data) == 9000
    made = builds.made
    builds.get(b"small", lambda: built(1))
    assert builds.made == made


def test_no_two_inputs_have_one_key() -> None:
    inputs = [
        ("cpp", "g++ 12", ("g++", "x"), (File("a", b"bc"),)),
        ("cpp", "g++ 12", ("g++", "x"), (File("ab", b"c"),)),
        ("cpp", "g++ 12", ("g++", "x"), (File("a", b"bc", executable=True),)),
        ("cpp", "g++ 12", ("g++", "x"), (File("a", b"b"), File("c", b""))),
        ("cpp", "g++ 12", ("g++x",), (File("a", b"bc"),)),
        ("cpp", "g++ 13", ("g++", "x"), (File("a", b"bc"),)),
        ("cppg++", " 12", ("g++", "x"), (File("a", b"bc"),)),
        ("c", "pp", ("g++ 12g++", "x"), (File("a", b"bc"),)),
    ]
    assert len({key_of(*one) for one in inputs}) == len(inputs)
    assert key_of(*inputs[0]) == key_of(*inputs[0])
