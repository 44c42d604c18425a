"""Finding the code in an answer: every shape models answer in, and that the program made of it runs."""

from __future__ import annotations

import ast
from dataclasses import dataclass

import pytest

from engine.generate.extract import Block, _unfenced, blocks, cut, extract, parsed
from engine.generate.request import sample_seed

PROMPT = '''from typing import List


def twice(x: int) -> int:
    """Double it.
    >>> twice(2)
    4
    """
'''


@dataclass(frozen=True)
class Asked:
    prompt: str = PROMPT
    entry_point: str = "twice"
    stop: tuple[str, ...] = ("\ndef", "\nclass", "\nprint", "\n#")
    suffix: str = ""
    language: str = "python"


TASK = Asked()
BARE = Asked(prompt="def twice(x):\n")
OPEN = Asked(prompt="def twice(x):")


def answer_of(text: str, task: Asked = TASK, *, chat: bool = False) -> int:
    """What the program made of an answer gives for 21."""
    names: dict[str, object] = {}
    exec(task.prompt + extract(text, task, chat=chat), names)
    return names[task.entry_point](21)  # type: ignore[operator,no-any-return]


def test_base_continuation_is_left_alone() -> None:
    assert extract("    return x * 2\n", TASK) == "    return x * 2\n"
    assert extract("    return '\t'\n", TASK) == "    return '\t'\n"


def test_stops_cut_the_new_text_only() -> None:
    assert extract("    return x * 2\n\ndef other():\n    pass\n", TASK) == "    return x * 2\n"
    assert extract("    return x * 2\nprint(twice(2))", TASK) == "    return x * 2"
    assert cut("abc", ()) == "abc"
    assert cut("a\nb\nc", ("\nc", "\nb")) == "a"


def test_the_prompts_own_text_is_no_stop() -> None:
    assert "\n\ndef" in TASK.prompt
    assert answer_of("    return x * 2") == 42


@pytest.mark.parametrize("task", [TASK, BARE, OPEN])
def test_answer_repeats_the_prompt(task: Asked) -> None:
    assert (
        answer_of(task.prompt + ("" if task.prompt.endswith("\n") else "\n") + "    return x * 2\n", task)
        == 42
    )


@pytest.mark.parametrize("task", [TASK, BARE, OPEN])
@pytest.mark.parametrize("chat", [False, True])
def test_answer_repeats_the_function(task: Asked, chat: bool) -> None:
    whole = "def twice(x):\n    return x * 2\n"
    assert answer_of(f"```python\n{whole}```" if chat else whole, task, chat=chat) == 42


def test_repeated_function_may_bring_imports_and_helpers() -> None:
    helper = "import operator\n\ndef add(a, b):\n    return operator.add(a, b)\n\n"
    assert answer_of(f"```python\n{helper}def twice(x):\n    return add(x, x)\n```", chat=True) == 42


def test_answer_in_a_class_prompt() -> None:
    task = Asked(prompt='class Pair:\n    """Two."""\n\n    def __init__(self, x):\n', entry_point="Pair")
    names: dict[str, object] = {}
    exec(task.prompt + extract("        self.x = x\n", task), names)
    assert names["Pair"](3).x == 3  # type: ignore[operator]
    whole = "class Pair:\n    def __init__(self, x):\n        self.x = x\n"
    names.clear()
    exec(task.prompt + extract(f"```\n{whole}```", task, chat=True), names)
    assert names["Pair"](3).x == 3  # type: ignore[operator]


GOOD = "def twice(x):\n    return x * 2\n"
DOCUMENTED = 'def twice(x):\n    """\n    ```\n    1\n    ```\n    """\n    return x * 2\n'
WRONG = "def twice(x):\n    return x + x + 1\n"


def fenced(code: str, tag: str = "python") -> str:
    return f"```{tag}\n{code}```\n"


CHAT = {
    "prose around": f"Sure! Here you go:\n\n{fenced(GOOD)}\nThis doubles x.",
    "no tag": fenced(GOOD, ""),
    "tag in capitals": fenced(GOOD, "Python"),
    "tag with options": fenced(GOOD, 'python title="a.py"'),
    "tildes": f"~~~python\n{GOOD}~~~",
    "cut at the length limit": f"```python\n{GOOD}",
    "example of use after it": f"{fenced(GOOD)}Use:\n{fenced('print(twice(2))' + chr(10))}",
    "shell before it": fenced("pip install nothing\n", "bash") + fenced(GOOD),
    "draft before it": f"{fenced(WRONG)}No:\n{fenced(GOOD)}",
    "broken block after it": f"{fenced(GOOD)}or\n{fenced('def twice(x:' + chr(10))}",
    "body only": fenced("return x * 2\n"),
    "indented body only": fenced("    y = x\n    return y * 2\n"),
    "in a list item": "1. Code:\n\n   ```python\n   def twice(x):\n       return x * 2\n   ```\n",
    "no fence": f"Here it is.\n\n{GOOD}\nIt doubles x.",
    "thinking": f"<think>\n{fenced(WRONG)}</think>\n{fenced(GOOD)}",
    "fence inside a docstring": f"````python\n{DOCUMENTED}````",
    "carriage returns": fenced(GOOD).replace("\n", "\r\n"),
    "helper": fenced("async def wait(): ...\n\n" + GOOD),
}


@pytest.mark.parametrize("text", CHAT.values(), ids=CHAT.keys())
@pytest.mark.parametrize("task", [TASK, BARE], ids=["docstring", "bare"])
def test_chat_answers(text: str, task: Asked) -> None:
    assert answer_of(text, task, chat=True) == 42


def test_stops_do_not_end_a_repeated_function_before_it_has_begun() -> None:
    text = "import operator\n\ndef twice(x):\n    return operator.add(x, x)\n\ndef other(:\n"
    assert answer_of(text) == 42


def test_a_name_that_only_begins_like_the_entry_point_is_another() -> None:
    text = fenced(GOOD) + fenced("def twice_as_much_again(x):\n    return 7\n")
    assert answer_of(text, chat=True) == 42


def test_base_model_that_answers_in_markdown() -> None:
    assert answer_of("```python\ndef twice(x):\n    return x * 2\n```\nThat is it.") == 42


def test_bytes_of_transport_are_removed() -> None:
    assert extract("\ufeff    return x * 2\r\n", TASK) == "    return x * 2\n"
    assert extract("    return\0 x * 2\n", TASK) == "    return x * 2\n"


@pytest.mark.parametrize("text", ["", "\n", "I cannot help with that.", "``` ```", "```python\n```"])
def test_no_code_is_an_empty_answer(text: str) -> None:
    assert extract(text, TASK, chat=True).strip() == ""


def test_extraction_is_a_fixed_point_of_replay() -> None:
    for text in CHAT.values():
        assert extract(text, TASK, chat=True) == extract(text, TASK, chat=True)


def test_blocks() -> None:
    assert blocks("a\n```py\nx\n```\nb\n~~~\ny") == [Block("py", "x\n"), Block("", "y\n")]


LONG = "A sentence of some words that says nothing, and goes on as such sentences do.\n" * 600
UNFENCED = {
    "prose behind": f"So:\n\n{GOOD}\n{LONG}",
    "an apostrophe behind": f"{GOOD}\nIt's done.\n{LONG}",
    "a bracket left open": f"{GOOD}\nprint((1,\n{LONG}",
    "a text left open": f'{GOOD}\ny = """\n{LONG}',
    "a head without a body": f"{GOOD}\n\ndef other(x):\n\n{LONG}",
    "a try without an end": f"{GOOD}\ntry:\n    twice(1)\n{LONG}",
    "cut in a body": GOOD + "\ndef other(x):\n    if x:\n",
    "nested without end": GOOD + "y = " + "(" * 300 + "\n" + LONG,
    "another margin": GOOD + "     return 7\n",
    "steps": f"{GOOD}\nStep 1: call it.\n  1. so\n{LONG}",
    "not defined": f"import os\n{LONG}",
    "never whole": "def twice(x:\n" + LONG,
}


def longest_that_parses(text: str) -> str:
    """The plain reading of the rule: beginnings of an answer without fences, the longest first."""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(("def ", "import ")))
    for end in range(len(lines), start, -1):
        code = "\n".join(lines[start:end]) + "\n"
        if parsed(code) is not None and "def twice" in code:
            return code
    return "\n".join(lines[start:]) + "\n"


@pytest.mark.parametrize("text", UNFENCED.values(), ids=UNFENCED.keys())
def test_code_is_found_before_long_prose_in_a_few_tries(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda code, *how: tried.append(len(code)) or parse(code, *how))
    assert _unfenced(text, "twice")
    assert len(tried) <= 8
    monkeypatch.undo()
    short = text.replace(LONG, LONG[: len(LONG) // 60])
    assert _unfenced(short, "twice") == longest_that_parses(short)


def test_an_answer_of_which_no_beginning_parses_is_given_up() -> None:
    text = GOOD + "@a\n" * 3000
    assert _unfenced(text, "twice") == text + "\n"


def test_a_fence_with_a_long_line_behind_it() -> None:
    assert blocks("```" + " " * 200_000 + "`\n" + fenced(GOOD)) == [Block("python", GOOD)]


def test_seed_depends_on_what_the_sample_is_and_nothing_else() -> None:
    assert sample_seed(0, "HumanEval/0", 0) == 3662024193353618415
    seeds = {
        sample_seed(run, task, sample)
        for run in range(3)
        for task in ("a", "b", "a/1")
        for sample in range(50)
    }
    assert len(seeds) == 3 * 3 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


LUA = Asked("-- Twice.\nlocal function twice(x)\n", stop=("\nlocal", "\nfunction"), language="lua")


@pytest.mark.parametrize(
    ("text", "chat", "completion"),
    [
        ("  return 2 * x\nend\nlocal y = 3\n", False, "  return 2 * x\nend"),
        (
            "Sure:\n```lua\nlocal function twice(x)\n  return 2 * x\nend\n```\nDone.",
            True,
            "  return 2 * x\nend\n",
        ),
        ("<think>\n```lua\nno\n```\n</think>\n```\n  return 2 * x\nend\n```", True, "  return 2 * x\nend\n"),
        ("-- Twice.\nlocal function twice(x)\n  return x\nend\n", False, "  return x\nend\n"),
        ("", True, ""),
    ],
)
def test_other_languages_go_on_after_the_prompts_last_line(text: str, chat: bool, completion: str) -> None:
    assert extract(text, LUA, chat=chat) == completion


SCRIPT = Asked(prompt='"""\nAdd them.\n"""\n', entry_point="", stop=('\n"""', "\n```"))
READS = "import sys\n\ndef solve():\n    print(sum(map(int, sys.stdin.read().split())))\n\nsolve()\n"
BARE_READS = "a, b = map(int, input().split())\nif a:\n    print(a + b)\n"
SCRIPTS = {
    "prose around": f"Sure:\n{fenced(READS)}Done.",
    "input and output shown after it": f"{fenced(READS)}For\n{fenced('1 2' + chr(10), '')}"
    f"it prints\n{fenced('3' + chr(10), '')}",
    "no tag, output shown": f"{fenced(READS, '')}It prints\n{fenced('3' + chr(10), '')}",
    "use shown after it": f"{fenced(READS)}Then\n{fenced('solve()' + chr(10))}",
    "draft before it": f"{fenced(READS.replace('sum', 'max'))}No:\n{fenced(READS)}",
    "broken block after it": f"{fenced(READS)}or\n{fenced('print(input(' + chr(10))}",
    "shell before it": f"{fenced('pip install x' + chr(10), 'bash')}{fenced(READS, '')}",
    "no fence": f"Here it is.\n\n{READS}\nIt adds them all.",
    "thinking": f"<think>\n{fenced('print(input())' + chr(10))}</think>\n{fenced(READS)}",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
@pytest.mark.parametrize("prompt", [SCRIPT.prompt, "# Add them.\n", ""], ids=["docstring", "comment", "none"])
def test_a_script_is_taken_whole(text: str, prompt: str) -> None:
    task = Asked(prompt=prompt, entry_point="", stop=SCRIPT.stop)
    assert extract(text, task, chat=True).rstrip() == READS.rstrip()
    assert extract(fenced(prompt + READS), task, chat=True) == READS


def test_a_script_without_functions_or_fences() -> None:
    assert extract(fenced(BARE_READS), SCRIPT, chat=True) == BARE_READS
    assert extract(f"We add.\n\n{BARE_READS}\nIt adds two.", SCRIPT, chat=True).strip() == BARE_READS.strip()
    assert extract("I cannot.", SCRIPT, chat=True) == ""


def test_a_script_continued_by_a_base_model_ends_before_the_next_question() -> None:
    assert extract(READS + '\n"""\nNext one.', SCRIPT) == READS
    assert extract(READS, SCRIPT) == READS


def test_a_prompt_of_comments_only_takes_a_body() -> None:
    assert extract(fenced("return 1\n"), Asked(prompt="# Twice.\n"), chat=True) == "return 1\n"
