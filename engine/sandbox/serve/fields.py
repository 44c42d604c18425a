"""Reading a client's JSON: each key by its kind, and whatever is wrong named with its place."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from typing import Any, NoReturn

from ..verdict import File
from .refusal import Refusal

_MISSING: Any = object()


def bad(text: str) -> NoReturn:
    """Refuse the request: its content is at fault."""
    raise Refusal(400, text)


def parse(body: bytes) -> Any:
    """The JSON value of a body. NaN and infinities are no JSON, and an integer of thousands of digits is no wish."""
    try:
        return json.loads(body, parse_constant=_no_number)
    except RecursionError:
        bad("the body's JSON is nested too deeply")
    except ValueError as error:  # broken JSON or UTF-8, or an integer that Python will not convert
        bad(f"the body is not JSON: {error}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


class Fields:
    """One JSON object. `place` says where it stood, for messages."""

    def __init__(self, value: object, place: str = "") -> None:
        if not isinstance(value, dict):
            bad(f"{place or 'the body'} must be a JSON object, not {_kind(value)}")
        self.values: dict[str, Any] = value
        self.place = f"{place}." if place else ""
        self.read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether the key was given a value."""
        return self.values.get(key) is not None

    def _get(self, key: str, kinds: tuple[type, ...], default: Any, wanted: str) -> Any:
        self.read.add(key)
        value = self.values.get(key)
        if value is None:
            if default is _MISSING:
                bad(f"{self.place}{key} is missing: give {wanted}")
            return default
        # JSON's true is no number, though Python's is
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            bad(f"{self.place}{key} must be {wanted}, not {_kind(value)}")
        return value

    def text(self, key: str, default: Any = _MISSING) -> Any:
        """A string."""
        return self._get(key, (str,), default, "a string")

    def flag(self, key: str) -> bool:
        """True or false; false where it is not given."""
        return bool(self._get(key, (bool,), False, "true or false"))

    def number(self, key: str, default: float, *, most: float = 1e9) -> float:
        """A number above 0. Comparing, not converting, is what an integer of any size survives."""
        value = self._get(key, (int, float), default, "a number")
        if not 0 < value <= most:
            bad(f"{self.place}{key} must be above 0 and at most {most:g}")
        return float(value)

    def size(self, key: str, default: int) -> int:
        """A number where 0 and less mean the default."""
        value = self._get(key, (int, float), default, "a number")
        if value != value or value > 1e9:
            bad(f"{self.place}{key} must be at most 1e9")
        return max(1, int(value)) if value > 0 else default

    def items(self, key: str, default: Any = _MISSING) -> list[Any]:
        """A list of anything."""
        return list(self._get(key, (list,), default, "a list"))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty where it is not given."""
        found = self.items(key, [])
        for number, value in enumerate(found):
            if not isinstance(value, str):
                bad(f"{self.place}{key}[{number}] must be a string, not {_kind(value)}")
        return tuple(found)

    def table(self, key: str) -> dict[str, Any]:
        """An object; empty where it is not given."""
        return dict(self._get(key, (dict,), {}, "an object"))

    def files(self, key: str) -> tuple[File, ...]:
        """An object of names and contents in base64. A name without content is left out."""
        found = []
        for name, content in self.table(key).items():
            if content is None:
                continue
            if not isinstance(content, str):
                bad(
                    f"{self.place}{key}: the content of {name!r} must be a base64 string, not {_kind(content)}"
                )
            try:
                found.append(File(name, base64.b64decode("".join(content.split()), validate=True)))
            except (binascii.Error, ValueError) as error:
                bad(f"{self.place}{key}: the content of {name!r} is not base64: {error}")
        return tuple(found)

    def close(self) -> None:
        """Refuse keys that nobody has read: a misspelt limit must not pass for a default."""
        for key in self.values.keys() - self.read:
            near = difflib.get_close_matches(key, self.read, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self.read))}"
            bad(f"there is no {self.place}{key}: {hint}")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
