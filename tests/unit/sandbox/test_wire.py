"""The wire under fuzzing: frames, values and failures from a stranger, and a live pool whose programs write garbage."""

from __future__ import annotations

import contextlib
import json
import marshal
import math
import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.sandbox import VERDICTS, Call, Pool, Program, codec, wire
from engine.sandbox.jail import Shape
from engine.sandbox.judge import read_failure
from engine.sandbox.keeper import Keeper
from engine.sandbox.streams import as_file
from engine.sandbox.watch import Order

from .conftest import QUICK

PURE = settings(max_examples=60, deadline=None, database=None, derandomize=True)
LIVE = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""The same examples in each run: a failure here is the change's, not the dice's."""

SHORT = replace(QUICK, cpu_seconds=0.2, wall_seconds=0.3)
"""For programs that may leave their judge waiting: half a header is a promise of more."""

SMALL = 200
"""A frame limit that random sizes fall on both sides of."""
MOST_CPU_SECONDS = 1.0
"""For a few kB. Honest decoding takes a thousandth of it; what grows with a size a stranger claims takes for ever."""

kinds = st.sampled_from([bytes([letter]) for letter in b"VXOLRNDECTKP?\0\xff"])
frames = st.lists(st.builds(wire.Frame, kinds, st.binary(max_size=SMALL)), max_size=8)


def stream_of(sent: list[wire.Frame]) -> bytes:
    return b"".join(wire.pack(frame.kind, frame.body) for frame in sent)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut anywhere, empty pieces included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=20)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@PURE
@given(frames, st.data())
def test_frames_are_the_same_however_the_stream_is_cut(sent: list[wire.Frame], data: st.DataObject) -> None:
    stream = stream_of(sent)
    inbox = wire.Inbox()
    got = [frame for piece in data.draw(pieces(stream)) for frame in inbox.feed(piece)]
    assert got == sent == wire.Inbox().feed(stream)
    assert not inbox.buffer


@PURE
@given(frames, st.data())
def test_a_descriptor_gives_the_same_frames_and_take_leaves_the_rest(
    sent: list[wire.Frame], data: st.DataObject
) -> None:
    stream = stream_of(sent)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(stream)
        first = data.draw(st.integers(0, len(sent)))
        taking, waiting = wire.Inbox(), wire.Inbox()
        assert [taking.take(near.fileno()) for _ in range(first)] == sent[:first]
        assert not taking.buffer  # another reader of the descriptor finds the next frame whole
        far.shutdown(socket.SHUT_WR)
        assert [waiting.wait(near.fileno()) for _ in sent[first:]] == sent[first:]
        assert waiting.wait(near.fileno()) is None


@PURE
@given(st.lists(st.binary(max_size=300), max_size=30))
def test_random_bytes_give_frames_or_malformed_and_are_never_hoarded(stream: list[bytes]) -> None:
    inbox = wire.Inbox(SMALL)
    for piece in stream:
        try:
            assert all(len(frame.body) <= SMALL for frame in inbox.feed(piece))
        except codec.Malformed:
            return
        assert len(inbox.buffer) < SMALL + 5


@PURE
@given(st.integers(0, 2 * SMALL), st.binary(max_size=20), st.sampled_from(["feed", "wait", "take"]))
def test_a_frame_over_the_limit_is_refused_at_its_header(size: int, rest: bytes, way: str) -> None:
    header = size.to_bytes(4, "big") + b"V"
    inbox = wire.Inbox(SMALL)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(header + rest[:size])
        far.shutdown(socket.SHUT_WR)
        read = {
            "feed": lambda: inbox.feed(header + rest[:size]),
            "wait": lambda: inbox.wait(near.fileno()),
            "take": lambda: inbox.take(near.fileno()),
        }[way]
        if size > SMALL:
            with pytest.raises(codec.Malformed, match=f"{size} bytes is over the limit"):
                read()
        else:
            read()


@PURE
@given(st.integers(0, 2**64 - 1), st.binary(max_size=50))
def test_a_number_comes_back_with_its_body(number: int, body: bytes) -> None:
    assert wire.read_number(wire.numbered(number, body)) == (number, body)


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats()
    | st.complex_numbers()
    | texts
    | st.binary(max_size=12)
    | st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
values = st.recursive(
    hashable | st.binary(max_size=12).map(bytearray) | st.sets(hashable, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=16,
)


def alike(left: object, right: object) -> bool:
    """Equal with every type exact, a NaN like another and 0.0 unlike -0.0: the meaning `codec` has to keep."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (
            math.isnan(left)
            and math.isnan(right)
            or (left == right and math.copysign(1, left) == math.copysign(1, right))
        )
    if isinstance(left, complex):
        return alike(left.real, right.real) and alike(left.imag, right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, dict):
        return alike(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        rest = list(right)
        for item in left:
            found = next((place for place, other in enumerate(rest) if alike(item, other)), None)
            if found is None:
                return False
            del rest[found]
        return not rest
    return left == right


@PURE
@given(values)
def test_any_plain_value_comes_back_with_all_its_types(value: object) -> None:
    for encoder in (codec.Encoder(), codec.Encoder(lenient=True)):
        assert alike(codec.decode(encoder.encode(value)), value)


def canonical(value: object) -> bytes:
    return codec.Encoder(canonical=True).encode(value)


@PURE
@given(values, values)
def test_canonical_bytes_are_the_same_for_the_same_value_alone(left: object, right: object) -> None:
    again = codec.decode(canonical(left))
    assert canonical(again) == canonical(left)
    assert codec.same(canonical(left), canonical(again))
    if canonical(left) == canonical(right):
        assert alike(codec.decode(canonical(left)), codec.decode(canonical(right)))


@st.composite
def mangled(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """Sound bytes with some of them changed, cut out, doubled or put in."""
    data = bytearray(draw(sound))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "double", "put in", "end"])):
            case "change" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 8))]
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 32))]
            case "put in":
                data[place:place] = draw(st.binary(max_size=8) | values.map(codec.encode))
            case "end":
                del data[place:]
    return bytes(data)


encodings = values.map(codec.encode)
any_bytes = st.binary(max_size=600) | mangled(encodings)


@PURE
@given(any_bytes)
def test_any_bytes_are_a_value_or_malformed_in_little_time(data: bytes) -> None:
    began = time.process_time()
    try:
        value = codec.decode(data)
    except codec.Malformed:
        assert codec.shown(data).startswith(("what is not a value", "a value of"))
    else:
        again = codec.Encoder(lenient=True).encode(value)
        assert codec.Encoder(lenient=True).encode(codec.decode(again)) == again
    assert time.process_time() - began < MOST_CPU_SECONDS


@PURE
@given(any_bytes, any_bytes)
def test_comparing_any_bytes_answers_the_same_from_both_sides(left: bytes, right: bytes) -> None:
    assert codec.same(left, left) and codec.same(right, right)
    assert codec.same(left, right) == codec.same(right, left)


@pytest.mark.parametrize(
    "item", [b"l\0\0\0\0", b"t\0\0\0\0", b"d\0\0\0\0", b"S\0\0\0\0", b"s\0\0\0\0", b"a\0\0\0\0", b"N"]
)
def test_the_densest_values_take_a_bounded_multiple_of_their_bytes(item: bytes) -> None:
    """The judge has 1,280 MB, and a frame at most 10 MB: at a factor of 60 both fit."""
    count = 50_000
    data = b"l" + count.to_bytes(4, "big") + item * count
    tracemalloc.start()
    try:
        codec.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 60 * len(data)
    finally:
        tracemalloc.stop()


told = st.tuples(
    texts | st.sampled_from(["compile", "load", "call", "test", "script"]),
    st.lists(texts | st.sampled_from(["Exception", "MemoryError", "SystemExit", "OSError"]), max_size=4),
    texts,
    st.none() | st.integers() | st.booleans(),
)


@PURE
@given(any_bytes | told.map(list).map(codec.encode) | mangled(told.map(list).map(codec.encode)))
def test_a_failure_is_read_whole_or_not_at_all(body: bytes) -> None:
    failure = read_failure(body)
    if failure is None:
        return
    assert type(failure.stage) is str and type(failure.text) is str
    assert type(failure.classes) is tuple and {type(name) for name in failure.classes} <= {str}
    assert failure.verdict() in set(VERDICTS) - {"passed", "infra"}
    line = failure.describe()
    assert len(line) <= 300 and line.isprintable()


def test_a_failure_too_long_is_none() -> None:
    assert read_failure(codec.encode(["call", ["Exception"], "x" * (1 << 16), None])) is None


RIGHT, WRONG = 2, 3
FORMS = {
    "calls": {"calls": (Call("f(1)", RIGHT),)},
    "test": {"entry_point": "f", "test": f"def check(candidate):\n    assert candidate(1) == {RIGHT}\n"},
    "asked one by one": {
        "entry_point": "f",
        "test": f"def check(candidate):\n    for x in [1]:\n        assert candidate(x) == {RIGHT}\n",
    },
    "together": {"test": f"assert f(1) == {RIGHT}\n", "together": True},
}
ENDS = {
    "answers": "return {answer}",
    "leaves": "os._exit(0)",
    "hangs up": "os.close(3)\n  return {answer}",
    "shuts its side": "import socket\n  socket.socket(fileno=3).shutdown(1)\n  return {answer}",
    "raises": "raise ValueError('no')",
}
"""What a program does after it wrote to its channel."""

spoken = st.sampled_from(
    [
        codec.encode(value)
        for value in (RIGHT, WRONG, [RIGHT, [None]], [RIGHT, []], [WRONG, []], [[], 1], 2.0, True, "2")
    ]
    + [codec.encode(["call", ["ValueError", "Exception"], "x", None]), codec.encode(["call", [], "", 11])]
    + [codec.encode(["x", ["\0", "Exception"], "\ud800", 2**70]), bytes(16), b""]
)
"""What honest programs say, and what nearly is that."""
sound = st.lists(st.builds(wire.pack, kinds, spoken | any_bytes), max_size=6).map(b"".join)
written = st.binary(max_size=200) | sound | mangled(sound)


@pytest.fixture(scope="module")
def alone() -> Iterator[Pool]:
    """One worker, so that the next program meets what the last one did to it."""
    with Pool(1) as opened:
        yield opened


def may_pass(form: str, stream: bytes) -> bool:
    """Whether the right answer is among the frames of a stream, and so may be believed."""
    inbox, got = wire.Inbox(), []
    for place in range(len(stream)):
        try:
            got += inbox.feed(stream[place : place + 1])
        except codec.Malformed:
            break
    for frame in got:
        if frame.kind == b"V" and form == "calls" and codec.same(canonical(RIGHT), frame.body):
            return True
        if frame.kind == b"V" and form in ("test", "asked one by one"):
            try:
                answer = codec.decode(frame.body)
            except codec.Malformed:
                continue
            if type(answer) is list and len(answer) == 2 and answer[0] == RIGHT:
                return True
    return False


def assert_the_next_is_judged_rightly(pool: Pool) -> None:
    source = "def f(x): return x + 1"
    programs = [Program(source, **FORMS[form]) for form in ("calls", "test", "together")]  # type: ignore[arg-type]
    programs.append(replace(programs[0], source="def f(x): return x"))
    names = [verdict.name for verdict in pool.run_many(programs, QUICK)]
    assert names == ["passed", "passed", "passed", "wrong"]


@pytest.mark.parametrize("form", FORMS)
@LIVE
@given(data=written, when=st.sampled_from(["call", "load"]), end=st.sampled_from(list(ENDS)))
def test_what_a_wrong_program_writes_to_its_channel_never_passes(
    alone: Pool, form: str, data: bytes, when: str, end: str
) -> None:
    verdict = alone.run(_writer(form, data, when, ENDS[end].format(answer=WRONG)), SHORT)
    assert verdict.name != "infra", verdict
    answer = canonical(WRONG) if form == "calls" else codec.encode([WRONG, [None]])
    if verdict.passed:
        assert may_pass(form, data + wire.pack(b"V", answer)), verdict
    assert_the_next_is_judged_rightly(alone)


@pytest.mark.parametrize("form", FORMS)
@LIVE
@given(data=written, when=st.sampled_from(["call", "load"]))
def test_a_right_program_that_writes_garbage_first_harms_only_itself(
    alone: Pool, form: str, data: bytes, when: str
) -> None:
    verdict = alone.run(_writer(form, data, when, f"return {RIGHT}"), SHORT)
    assert verdict.name != "infra", verdict
    assert verdict.passed or data, verdict
    assert_the_next_is_judged_rightly(alone)


def _writer(form: str, data: bytes, when: str, end: str) -> Program:
    """A program that writes `data` to its channel while it is loaded, or when it is called."""
    write = f"os.write(3, {data!r})"
    source = f"import os\n{write if when == 'load' else ''}\ndef f(x):\n  {write if when == 'call' else ''}\n  {end}\n"
    return Program(source, **FORMS[form])  # type: ignore[arg-type]


@LIVE
@given(data=written)
def test_what_answers_a_question_for_a_name_never_breaks_the_judge(alone: Pool, data: bytes) -> None:
    """A test that names what nobody defines asks the program; it may answer as it likes, but only with data."""
    body = "def check(candidate):\n    for x in [1]:\n        assert helper(x) == candidate(x) + 1\n"
    source = (
        f"import os\ndef helper(x): return x\nos.write(3, b'\\0\\0\\0\\0R' + {data!r})\ndef f(x): return 0"
    )
    verdict = alone.run(Program(source, entry_point="f", test=body), SHORT)
    assert verdict.name != "infra", verdict
    assert_the_next_is_judged_rightly(alone)


ORDER = asdict(Order(7, "program", 0.2, 0.3, 256, 0, 32, 16, []))
JOB = {"form": "script", "source": "pass", "arguments": (), "files": [], "calls": (), "ahead": ("f", ())}
scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5) | st.lists(st.none())
)
half_meant = st.builds(
    lambda changes, gone: {k: v for k, v in {**ORDER, **changes}.items() if k != gone},
    st.dictionaries(st.sampled_from(list(ORDER)) | st.text(max_size=3), scalars, max_size=2),
    st.sampled_from([*ORDER, ""]),
)
orders = st.binary(min_size=1, max_size=40) | st.builds(
    lambda key, value: json.dumps({key: value}).encode(),
    st.sampled_from(["run", "end", "go_on", "x"]),
    half_meant | scalars,
)


@LIVE
@given(data=orders)
def test_an_order_nobody_means_is_passed_over_or_ends_the_jail(pool: Pool, data: bytes) -> None:
    """Orders come from the worker alone; even so none of them may leave it waiting, or get another order's report."""
    with contextlib.closing(Keeper(Shape(pool.level, 16))) as keeper:
        keeper.control.settimeout(10)
        keeper.control.send(data)
        null, job = os.open(os.devnull, os.O_RDWR), as_file(marshal.dumps(JOB))
        with contextlib.suppress(OSError):  # it may have ended already
            keeper.run(99, "program", QUICK, [null, null, null, null, job])
        os.close(null)
        os.close(job)
        told: dict = {}
        while told.get("serial") != 99 and (answer := _answer(keeper)):
            told = json.loads(answer)
        assert told.get("serial") != 99 or told["status"] == 0, told
        if not told:
            assert keeper.process.wait(10) is not None


def _answer(keeper: Keeper) -> bytes:
    try:
        return keeper.control.recv(1 << 16)
    except ConnectionResetError:
        return b""


GREETINGS = "wire = (struct.pack('>Ic', 1 << 20, b'R') + bytes(1 << 20)) * 8"
MOST_WORKER_MB = 80
"""About 20 of its own, two frames of the largest size, and room."""
FLOODS = {
    "frames of the largest size": "wire = struct.pack('>Ic', 10 << 20, b'Z') + bytes(10 << 20)",
    "empty greetings": "wire = b'\\0\\0\\0\\0R' * (1 << 17)",
    "a frame over the limit": "wire = b'\\xff\\xff\\xff\\xffZ' + bytes(1 << 20)",
    "empty frames": "wire = b'\\0\\0\\0\\0Z' * (1 << 17)",
    "failures": "wire = (struct.pack('>Ic', 60000, b'X') + bytes(60000)) * 20",
    "numbers that collide": (
        "item = lambda n: b'i\\0\\0\\0\\x0c' + (n * (2 ** 61 - 1)).to_bytes(12, 'big')\n"
        "body = b'S' + struct.pack('>I', 3800) + b''.join(map(item, range(3800)))\n"
        "wire = struct.pack('>Ic', len(body), b'X') + body"
    ),
}


@pytest.mark.parametrize("form", ["script", *FORMS])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_the_channel_neither_fills_nor_holds_the_worker(alone: Pool, name: str, form: str) -> None:
    _flood(alone, FLOODS[name], form)


def test_greetings_without_end_are_not_kept(alone: Pool) -> None:
    _flood(alone, GREETINGS, "test")


def _flood(pool: Pool, lines: str, form: str) -> None:
    source = f"import os, struct\n{lines}\nwhile True: os.write(3, wire)\ndef f(x): return 2"
    _status(pool, "clear_refs").write_text("5")  # the largest so far is forgotten
    began = time.monotonic()
    verdict = pool.run(Program(source, **FORMS.get(form, {})), SHORT)  # type: ignore[arg-type]
    assert not verdict.passed and verdict.name != "infra", verdict
    assert time.monotonic() - began < 20
    assert _peak_mb(pool) < MOST_WORKER_MB
    assert_the_next_is_judged_rightly(pool)


def _status(pool: Pool, name: str) -> Path:
    return Path(f"/proc/{pool._processes[0].process.pid}/{name}")


def _peak_mb(pool: Pool) -> float:
    """Most memory the pool's worker has had resident."""
    lines = _status(pool, "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


UNSPEAKABLE = ["assert candidate(1) == 2, candidate(1)", "raise KeyError(candidate(1))"]


@pytest.mark.parametrize("body", UNSPEAKABLE)
def test_a_value_that_has_no_text_does_not_end_the_judge(alone: Pool, body: str) -> None:
    """An int of 5,000 digits crosses the wire, and Python refuses to print it."""
    test = f"def check(candidate):\n    {body}\n"
    verdict = alone.run(Program("def f(x): return 10 ** 5000", entry_point="f", test=test), QUICK)
    assert verdict.name == "wrong", verdict
    assert_the_next_is_judged_rightly(alone)
