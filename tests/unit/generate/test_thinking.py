"""Thinking is dropped by a rule that is written down; what never ends leaves nothing, and code keeps its own tags."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from engine.generate import AUTO, Thinking, extract
from engine.generate.thinking import PAIRS, VERSION

PLAN = Thinking.of(("<plan>", "</plan>"))
FENCED = "```python\ndef f(x):\n    return '</think>' + x\n```\n"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_every_known_pair(opening: str, closing: str) -> None:
    assert AUTO.answer(f"{opening}\nhm {FENCED}{closing}\n\nyes") == "\n\nyes"
    assert AUTO.answer(f"\n {opening}hm") is None
    assert AUTO.answer(f"hm{closing}yes", prompt=f"question\n{opening}\n") == "yes"
    assert AUTO.answer("hm", prompt=f"question{opening}") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"),
        ("", ""),
        ("hm.</think>yes", "yes"),  # a server's template opened it, unseen
        ("hm, </think>\n<think>hm</think>yes", "\nyes"),
        ("Well:\n<think>hm</think>yes", "Well:\nyes"),
        ("<think></think>yes", "yes"),
        ("<think>so `x`</think>yes", "yes"),
        ("<think>not '</think>', but</think>'yes'", "'yes'"),
        ("<think>a</think>yes\n<think>cut", None),
        (FENCED, FENCED),
        (f"<think>hm</think>{FENCED}", FENCED),
        ("```html\n<think>\n```\nyes", "```html\n<think>\n```\nyes"),
        ('Use `</think>` or "</think>" or a <think> in a line.', None),
        ("</think>", ""),
        (f"{FENCED}\n</think>\n", f"{FENCED}\n\n"),  # what nothing follows has closed nothing
        (f"{FENCED}The tag </think> closes.", f"{FENCED}The tag </think> closes."),
        ("<plan>no tag of these</plan>yes", "<plan>no tag of these</plan>yes"),
    ],
)
def test_where_the_answer_begins(text: str, answer: str | None) -> None:
    if text.startswith("Use"):  # tags that are spoken of, not used
        answer = text
    assert AUTO.answer(text) == answer


CODE = "~~~python\ndef f(x):\n    return x\n~~~\n"
INNER = "```html\n<think>\nhm\n</think>\n```\n"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("~~~html\n<think>\n~~~\nyes", "~~~html\n<think>\n~~~\nyes"),
        ("~~~\nx</think>\n~~~\nyes", "~~~\nx</think>\n~~~\nyes"),
        (f"````markdown\n{INNER}````\nyes", f"````markdown\n{INNER}````\nyes"),
        (f"<think>hm</think>````markdown\n{INNER}````\n", f"````markdown\n{INNER}````\n"),
        (f"<think>so:\n{INNER}but\n</think>\n{CODE}", f"\n{CODE}"),
        (f"<think>\n~~~\n</think>\n~~~\n</think>{CODE}", CODE),
        (f"<think>\n```python\na draft\n</think>\n{CODE}", f"\n{CODE}"),  # its fence was never closed
        (f"Inline ``` is no fence.\n<think>hm</think>{CODE}", f"Inline ``` is no fence.\n{CODE}"),
        (f"<think>```</think>{CODE}<think>cut", CODE + "<think>cut"),
    ],
)
def test_tags_in_fences_of_any_kind_are_code(text: str, answer: str) -> None:
    if text.endswith("<think>cut"):  # thinking that never ends
        assert AUTO.answer(text) is None
    else:
        assert AUTO.answer(text) == answer


def test_own_tags_and_none() -> None:
    assert PLAN.answer("<plan>hm</plan>yes") == "yes"
    assert PLAN.answer("<think>hm</think>yes") == "<think>hm</think>yes"
    keep = Thinking.of("keep")
    assert keep.answer("<think>hm") == "<think>hm"
    assert keep.answer("hm</think>yes", prompt="<think>") == "hm</think>yes"


def test_the_rule_is_told_with_its_version() -> None:
    assert asdict(PLAN) == {"name": "<plan> </plan>", "pairs": (("<plan>", "</plan>"),), "version": VERSION}
    assert (AUTO.name, Thinking.of("keep").pairs) == ("auto", ())


class Task:
    prompt = ""
    entry_point = "f"
    stop = ()
    suffix = ""
    language = "python"


def test_extraction_goes_by_the_rule() -> None:
    draft = "```python\ndef f(x):\n    return 0\n```\n"
    cut = f"<think>\n{draft}and"
    assert extract(cut, Task(), chat=True) == ""
    assert "return 0" in extract(cut, Task(), chat=True, thinking=Thinking.of("keep"))
    assert extract(f"{draft}and", Task(), chat=True, rendered="<|assistant|><think>\n") == ""
    assert extract("x = '</think>'\n", Task()) == "x = '</think>'\n", "a text that goes on is no chat"
    assert "'</think>' + x" in extract(f"<think>{draft}</think>{FENCED}", Task(), chat=True)
