"""Formats: found by columns, renamed by `fields`, and refused with the place where a row does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config import Source
from engine.data.formats import Chat, Document, Pair, detect, samples
from engine.data.sources import Row
from engine.errors import WishError


def _row(**fields: Any) -> Row:
    return Row("r:1", "rows.jsonl:1", fields)


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "messages"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"instruction": "a", "input": "", "output": "b"}, "instruction"),
        ({"text": "a"}, "text"),
        ({"text": "a", "code": "b"}, "code"),
        ({"content": "a"}, "code"),
        ({"text": "a", "content": "b"}, "text"),
    ],
)
def test_the_format_is_found_by_the_columns_of_the_first_row(fields: dict[str, Any], name: str) -> None:
    assert detect(_row(**fields), Source(path="x")) == name


def test_columns_can_be_renamed() -> None:
    source = Source(path="x", fields={"prompt": "question", "completion": "canonical_solution"})
    name, found = samples([_row(question="a", canonical_solution="b")], source, has_template=False)
    assert name == "completion" and found == [Pair("r:1", "rows.jsonl:1", "a", "b")]


def test_an_instruction_is_a_chat_where_there_is_a_template_and_a_pair_where_there_is_none() -> None:
    row, source = _row(instruction="Do", input="this", output="done"), Source(path="x")
    (chat,), (pair,) = (samples([row], source, has_template=has)[1] for has in (True, False))
    assert isinstance(chat, Chat) and [m["content"] for m in chat.messages] == ["Do\n\nthis", "done"]
    assert isinstance(pair, Pair) and pair.completion == "done" and "### Input:\nthis" in pair.prompt


def test_other_spellings_of_turns_are_understood() -> None:
    turns = [
        {"from": "human", "value": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
    _, (chat,) = samples([_row(conversations=turns)], Source(path="x"), has_template=True)
    assert isinstance(chat, Chat)
    assert chat.messages == ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


def test_code_is_told_from_text() -> None:
    for column, code in (("code", True), ("text", False)):
        _, (document,) = samples([_row(**{column: "x"})], Source(path="x"), has_template=False)
        assert isinstance(document, Document) and document.code is code


@pytest.mark.parametrize(
    ("fields", "asked", "told"),
    [
        ({"foo": "x"}, "auto", r"rows\.jsonl:1 fits no format by its columns 'foo'.*fields"),
        (
            {"prompt": "x"},
            "completion",
            r"rows\.jsonl:1 has no column 'completion'.*it has 'prompt'.*YOUR_COLUMN",
        ),
        ({"prompt": "x", "completion": None}, "auto", r"rows\.jsonl:1: column 'completion' holds a NoneType"),
        ({"text": 3}, "text", r"rows\.jsonl:1: column 'text' holds a int, not text"),
        ({"text": "a\ud83d"}, "text", r"rows\.jsonl:1 holds half a character .* at position 1"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "auto", "half a character"),
        ({"messages": []}, "auto", r"rows\.jsonl:1: `messages` holds '\[\]'"),
        ({"messages": [{"role": "user"}]}, "auto", r"rows\.jsonl:1: a turn of `messages` lacks"),
        ({"messages": "not json"}, "auto", r"rows\.jsonl:1: `messages` is not a list"),
    ],
)
def test_a_row_that_does_not_fit_is_named(fields: dict[str, Any], asked: str, told: str) -> None:
    with pytest.raises(WishError, match=told):
        samples([_row(**fields)], Source(path="x", format=asked), has_template=True)
