"""What the README and the how-tos tell a person to type exists: verbs, options, targets and files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from launch.cli import VERBS, temper

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:temper|make) [^`\n]+)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def commands(page: Path) -> Iterator[list[str]]:
    """Every `temper ...` and `make ...` a page shows, as words."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += INLINE.findall(text)
    for line in lines:
        for part in re.split(r"&&|\|", line.removeprefix("$ ").split(" #")[0]):
            words = shlex.split(part)
            if words[:1] in (["temper"], ["make"]):
                yield words


def shown() -> list[tuple[str, list[str]]]:
    found = [(page.relative_to(ROOT).as_posix(), words) for page in PAGES for words in commands(page)]
    return [one for number, one in enumerate(found) if one not in found[:number]]


@cache
def engine_help(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "engine", *words, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"python -m engine {' '.join(words)} --help: {done.stderr[-500:]}"
    return done.stdout


def is_word(text: str) -> bool:
    """Whether a word is meant as it stands, rather than to be filled in (RUN.yaml, N, ...)."""
    return bool(re.fullmatch(r"[a-z][a-z-]*", text))


@pytest.mark.parametrize(
    ("page", "words"), shown(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_command_shown_exists(page: str, words: list[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        asked = [word for word in words[1:] if "=" not in word]
        assert set(asked) <= set(targets)
        return
    verb, rest = words[1], words[2:]
    if verb in ("VERB", "--help", "--version"):
        return
    assert verb in VERBS, f"{page} shows `temper {verb}`"
    options = {word.split("=")[0] for word in rest if word.startswith("--")}
    if VERBS[verb][1]:
        command = temper.get_command(click.Context(temper), verb)
        if isinstance(command, click.Group) and rest and is_word(rest[0]):
            command = command.commands.get(rest[0])
        assert command is not None, f"{page} shows `{' '.join(words)}`"
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert options <= known, f"{page} shows `{' '.join(words)}`"
        return
    inner = [word for word in rest[:1] if is_word(word)] if verb in ("benchmark", "sandbox", "data") else []
    text = engine_help(verb, *inner)
    assert all(option in text for option in options), f"{page} shows `{' '.join(words)}`"


@pytest.mark.parametrize(
    ("page", "words"), shown(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_config_shown_is_there(page: str, words: list[str]) -> None:
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).exists(), f"{page} names {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


def test_the_tree_of_the_readme_has_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    rooms = [
        part for part in (ROOT / "engine").iterdir() if part.is_dir() and (part / "__init__.py").exists()
    ]
    missing = [room.name for room in rooms if f"{room.name}/" not in text]
    assert not missing, "the README's tree has one line a room"


def test_the_reference_is_what_the_schema_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch", "config", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    written = (ROOT / "docs" / "reference" / "run.md").read_text()
    assert done.stdout == written, "run `make docs`"


def test_the_version_is_told_once() -> None:
    from launch.cli import VERSION

    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert f"[{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()
