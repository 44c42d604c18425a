"""Plain data as bytes: exact types, bounded size and depth, and a comparison that never rebuilds a value.

The wire is a pre-order stream of tokens, one byte of tag each. Only None, bool, int, float, complex, str, bytes,
bytearray, list, tuple, dict, set, frozenset and range cross, and only when `type(value)` is exactly that: an object
that claims to equal everything has no spelling here. Set items, and dict entries in canonical form, are sorted by
their bytes, so two equal values have equal bytes and are compared without hashing anything a stranger chose.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from typing import Any

MAX_BYTES = 10 << 20
MAX_DEPTH = 150
FLOAT_TOLERANCE = 1e-9
_SHOWN = 600

_SIZED: dict[type, bytes] = {str: b"s", bytes: b"b", bytearray: b"a"}
_SEQUENCES: dict[type, bytes] = {list: b"l", tuple: b"t"}
_SETS: dict[type, bytes] = {set: b"S", frozenset: b"Z"}
_ITERATORS: tuple[type, ...] = (
    type(_ for _ in ()), map, filter, zip, enumerate, reversed, type(iter([])), type(iter(())), islice,
)  # fmt: skip
_length = struct.Struct(">I")
_float = struct.Struct(">d")
_complex = struct.Struct(">dd")


class NotPlain(ValueError):
    """The value, or something in it, is not plain data; the message names its type."""


class Malformed(ValueError):
    """The bytes are not a value of this wire format."""


class TooLarge(ValueError):
    """The value takes more than the allowed bytes."""


class Encoder:
    """One encoding with its options.

    `canonical`: dict entries sorted, so that equal values give equal bytes. `lenient`: the standard library's dict
    subclasses and iterators cross as plain dicts and plain iterators (an assert in the judge treats them alike).
    """

    def __init__(self, *, canonical: bool = False, lenient: bool = False, limit: int = MAX_BYTES) -> None:
        self.canonical = canonical
        self.lenient = lenient
        self.limit = limit

    def encode(self, value: object) -> bytes:
        out = bytearray()
        self._put(value, out, 0)
        if len(out) > self.limit:
            raise TooLarge(f"the value takes more than {self.limit >> 20} MB")
        return bytes(out)

    def _put(self, value: Any, out: bytearray, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise NotPlain(f"data nested deeper than {MAX_DEPTH}")
        if len(out) > self.limit:
            raise TooLarge(f"the value takes more than {self.limit >> 20} MB")
        kind = type(value)
        if value is None or kind is bool:
            out += b"N" if value is None else b"T" if value else b"F"
        elif kind is int:
            size = value.bit_length() // 8 + 1
            out += b"i" + _length.pack(size) + value.to_bytes(size, "big", signed=True)
        elif kind is float:
            out += b"f" + _float.pack(value)
        elif kind in _SIZED:
            data = value.encode("utf-8", "surrogatepass") if kind is str else value
            out += _SIZED[kind] + _length.pack(len(data)) + data
        elif kind in _SEQUENCES:
            out += _SEQUENCES[kind] + _length.pack(len(value))
            for item in value:
                self._put(item, out, depth + 1)
        elif kind is dict or (self.lenient and kind in (Counter, OrderedDict, defaultdict)):
            self._put_dict(value, out, depth)
        elif kind in _SETS:
            parts = sorted(self._part(item, depth) for item in value)
            out += _SETS[kind] + _length.pack(len(parts)) + b"".join(parts)
        elif kind is complex:
            out += b"c" + _complex.pack(value.real, value.imag)
        elif kind is range:
            out += b"r"
            for item in (value.start, value.stop, value.step):
                self._put(item, out, depth + 1)
        elif self.lenient and kind in _ITERATORS:
            items = list(islice(value, self.limit // 8))
            out += b"I" + _length.pack(len(items))
            for item in items:
                self._put(item, out, depth + 1)
        else:
            raise NotPlain(f"{kind.__name__}"[:80])

    def _part(self, value: object, depth: int) -> bytes:
        part = bytearray()
        self._put(value, part, depth + 1)
        return bytes(part)

    def _put_dict(self, value: dict, out: bytearray, depth: int) -> None:
        out += b"d" + _length.pack(len(value))
        entries = [(self._part(key, depth), item) for key, item in value.items()]
        if self.canonical:
            entries.sort(key=lambda entry: entry[0])
        for key, item in entries:
            out += key
            self._put(item, out, depth + 1)


def encode(value: object) -> bytes:
    """`value` as bytes, dict order kept. Raises NotPlain or TooLarge."""
    return Encoder().encode(value)


def _tokens(data: bytes) -> Iterator[tuple[int, Any]]:
    """The (tag, payload) stream of an encoded value. Raises Malformed."""
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag in b"isba":
            size = _count(data, at)
            at += 4
            if size > end - at:
                raise Malformed("a length runs past the end")
            yield tag, data[at : at + size]
            at += size
        elif tag in b"ltdSZI":
            yield tag, _count(data, at)
            at += 4
        elif tag == ord("f"):
            yield tag, _take(_float, data, at)[0]
            at += 8
        elif tag == ord("c"):
            yield tag, _take(_complex, data, at)
            at += 16
        elif tag in b"NTFr":
            yield tag, None
        else:
            raise Malformed(f"unknown tag {tag}")


def _take(form: struct.Struct, data: bytes, at: int) -> tuple:
    try:
        return form.unpack_from(data, at)
    except struct.error:
        raise Malformed("cut short") from None


def _count(data: bytes, at: int) -> int:
    return _take(_length, data, at)[0]


def same(expected: bytes, got: bytes) -> bool:
    """Whether two canonical encodings spell the same value: types exact, floats equal or within 1e-9 relative.

    Linear in the bytes, without recursion or hashing, so a stranger's value cannot make it slow.
    """
    if expected == got:
        return True
    try:
        for left, right in zip_longest(_tokens(expected), _tokens(got)):
            if left == right:
                continue
            if left is None or right is None or left[0] != right[0]:
                return False
            if left[0] == ord("f"):
                pairs = [(left[1], right[1])]
            elif left[0] == ord("c"):
                pairs = list(zip(left[1], right[1], strict=True))
            else:
                return False
            if not all(_near(a, b) for a, b in pairs):
                return False
    except Malformed:
        return False
    return True


def _near(left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return math.isclose(left, right, rel_tol=FLOAT_TOLERANCE)


def decode(data: bytes) -> Any:
    """The value `data` spells, rebuilt from builtins only. Raises Malformed."""
    stream = _tokens(data)
    try:
        value = _build(stream, 0, len(data))
        if next(stream, None) is not None:
            raise Malformed("bytes after the value")
        return value
    except (StopIteration, RuntimeError):
        raise Malformed("cut short") from None
    except (TypeError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(str(error)) from None


_LITERALS = {ord("N"): None, ord("T"): True, ord("F"): False}
_CONTAINERS: dict[int, Callable[[list], object]] = {
    ord("l"): list,
    ord("t"): tuple,
    ord("S"): set,
    ord("Z"): frozenset,
    ord("I"): lambda items: iter(list(items)),
}


def _build(stream: Iterator[tuple[int, Any]], depth: int, room: int) -> Any:
    if depth > MAX_DEPTH + 1:
        raise Malformed("nested too deep")
    tag, payload = next(stream)
    if tag in _LITERALS:
        return _LITERALS[tag]
    if tag == ord("i"):
        return int.from_bytes(payload, "big", signed=True)
    if tag == ord("s"):
        return payload.decode("utf-8", "surrogatepass")
    if tag == ord("f"):
        return payload
    if tag == ord("b"):
        return bytes(payload)
    if tag == ord("a"):
        return bytearray(payload)
    if tag == ord("c"):
        return complex(*payload)
    if tag == ord("r"):
        return range(*(_build(stream, depth + 1, room) for _ in range(3)))
    if payload > room:
        raise Malformed("more items than bytes")
    if tag == ord("d"):
        return {_build(stream, depth + 1, room): _build(stream, depth + 1, room) for _ in range(payload)}
    return _CONTAINERS[tag]([_build(stream, depth + 1, room) for _ in range(payload)])


def shown(data: bytes) -> str:
    """A short value in words; a long one only by its size, since a stranger chose it."""
    if len(data) > _SHOWN:
        return f"a value of {len(data)} bytes"
    try:
        return repr(decode(data))
    except Malformed:
        return "what is not a value"
