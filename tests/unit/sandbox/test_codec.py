"""The wire: exact types, bounded, canonical where asked, and harmless when a stranger writes it."""

from __future__ import annotations

import collections
import enum
import math
import os
import random

import pytest

from engine.sandbox import codec, wire

PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    127,
    128,
    -128,
    -129,
    10**50,
    -(10**50),
    0.0,
    -0.0,
    1.5,
    math.inf,
    2 + 3j,
    "",
    "é☃",
    "\ud800",
    b"",
    b"\0x",
    bytearray(b"ab"),
    [],
    [1, [2, [3]]],
    (),
    (1, "a", None),
    {},
    {"a": 1, 2: [3], (1, 2): {"x": None}},
    set(),
    {1, "a", (2,)},
    frozenset({1, 2}),
    range(1, 10, 3),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_comes_back_with_its_exact_type(value: object) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value and type(back) is type(value) and repr(back) == repr(value)


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Colour.RED,
        collections.Counter("a"),
        collections.namedtuple("P", "x")(1),
        iter([1]),
        len,
        {}.keys(),
        [object()],
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_not_exactly_plain_does_not_cross(value: object) -> None:
    with pytest.raises(codec.NotPlain):
        codec.encode(value)


def test_lenient_form_takes_the_librarys_dicts_and_iterators() -> None:
    encoder = codec.Encoder(lenient=True)
    assert codec.decode(encoder.encode(collections.Counter("aab"))) == {"a": 2, "b": 1}
    assert list(codec.decode(encoder.encode(x for x in (1, 2)))) == [1, 2]  # type: ignore[call-overload]


def test_bounds() -> None:
    with pytest.raises(codec.TooLarge):
        codec.Encoder(limit=1000).encode(["x" * 100] * 100)
    nested: list = []
    nested.append(nested)
    with pytest.raises(codec.NotPlain, match="nested"):
        codec.encode(nested)


def _canonical(value: object) -> bytes:
    return codec.Encoder(canonical=True).encode(value)


SAME = [
    ({1: 2, "a": 3}, {"a": 3, 1: 2}),
    ({3, 1, 2}, {2, 3, 1}),
    (0.1 + 0.2, 0.3),
    ([1e300, {"x": 1 / 3}], [1e300 * (1 + 1e-12), {"x": 0.3333333333333}]),
    (math.nan, float("nan")),
    (0.0, -0.0),
]
DIFFERENT = [
    (1, True),
    (1, 1.0),
    ([1], (1,)),
    ("a", b"a"),
    ({1}, frozenset({1})),
    ([1, 2], [1]),
    ([1], [1, 2]),
    (1.0, 1.0001),
    (0.0, 1e-12),
    (math.inf, 1e308),
    ({1: 2}, {1: 3}),
    ({1: 2}, {2: 2}),
    (None, False),
    ([[], [1]], [[1], []]),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equal_values_compare_equal(left: object, right: object) -> None:
    assert codec.same(_canonical(left), _canonical(right))


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_different_values_or_types_do_not(left: object, right: object) -> None:
    assert not codec.same(_canonical(left), _canonical(right))
    assert not codec.same(_canonical(right), _canonical(left))


def test_garbage_is_refused_and_never_more() -> None:
    draw = random.Random(7)
    seeds = [codec.encode(value) for value in PLAIN]
    for _ in range(3000):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(1, 4)):
            data.insert(draw.randrange(len(data) + 1), draw.randrange(256))
        if draw.random() < 0.3:
            data = bytearray(draw.randbytes(draw.randrange(40)))
        try:
            codec.decode(bytes(data))
        except codec.Malformed:
            pass
        codec.same(seeds[0], bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"l\xff\xff\xff\xff",
        b"d\xff\xff\xff\xffN",
        b"s\xff\xff\xff\xffx",
        b"i\0\0",
        b"f1",
        b"?",
        b"NN",
        b"S\0\0\0\1l\0\0\0\0",
        b"d\0\0\0\1l\0\0\0\0N",
        b"s\0\0\0\1\xff",
        b"rNNN",
        b"ri\0\0\0\1\0i\0\0\0\1\0i\0\0\0\1\0",
        b"l\0\0\0\1" * 5000 + b"N",
    ],
)
def test_malformed_bytes_are_named_so(data: bytes) -> None:
    with pytest.raises(codec.Malformed):
        codec.decode(data)


def test_frames_survive_any_cut_and_a_frame_too_long_is_refused() -> None:
    near, far = os.pipe()
    try:
        wire.send(far, b"A", b"one")
        wire.send(far, b"B")
        stream = os.read(near, 100)
        inbox = wire.Inbox()
        frames = [frame for byte in stream for frame in inbox.feed(bytes([byte]))]
        assert frames == [wire.Frame(b"A", b"one"), wire.Frame(b"B", b"")]
        with pytest.raises(codec.Malformed):
            wire.Inbox().feed(b"\xff\xff\xff\xffA")
        os.write(far, b"\xff\xff\xff\xffA")
        with pytest.raises(codec.Malformed):
            wire.Inbox().wait(near)
    finally:
        os.close(near)
        os.close(far)
