"""Warnings of other ranks on the console: prefixed, folded, and only what is worth a look."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.echo import AGAIN_SECONDS, HOLD_SECONDS, MOST_LINES, Echo


class Console:
    """A console whose clock is set by hand."""

    def __init__(self, logs: Path) -> None:
        self.logs, self.now, self.first, self.lines = logs, 0.0, "", list[str]()
        self.echo = Echo(logs, "node-a", lambda text: text in self.first, self.lines.append, lambda: self.now)

    def say(self, rank: int, text: str, stream: str = "stderr") -> None:
        file = self.logs / "none_x" / "attempt_0" / str(rank) / f"{stream}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(text)

    def after(self, seconds: float) -> list[str]:
        """What is shown within these seconds."""
        self.lines.clear()
        for _ in range(2):
            self.now += max(0.6, seconds / 2)
            self.echo.look()
        return list(self.lines)


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path)


def test_equal_lines_of_many_ranks_are_one(console: Console) -> None:
    for rank in range(1, 8):
        console.say(rank, "loading\nWARNING: slow tokenizer\n")
    console.say(3, "/x/y.py:7: UserWarning: odd shape\n  y = x\n", "stdout")
    assert console.after(2 * HOLD_SECONDS + 1) == [
        "node-a:1 (x7) WARNING: slow tokenizer",
        "node-a:3 /x/y.py:7: UserWarning: odd shape",
    ]


def test_a_line_that_goes_on_is_told_once_a_minute(console: Console) -> None:
    console.say(1, "ERROR: retry\n")
    assert console.after(4) == ["node-a:1 ERROR: retry"]
    for _ in range(5):
        console.say(1, "ERROR: retry\n")
    assert console.after(4) == []
    assert console.after(AGAIN_SECONDS) == ["node-a:1 (x5) ERROR: retry"]


def test_half_a_line_waits_for_its_end(console: Console) -> None:
    console.say(1, "ERR")
    assert console.after(4) == []
    console.say(1, "OR: whole\n")
    assert console.after(4) == ["node-a:1 ERROR: whole"]


def test_what_the_first_rank_has_shown_is_not_said_again(console: Console) -> None:
    console.first = "step 1\nWARNING: slow tokenizer\n"
    console.say(1, "WARNING: slow tokenizer\n")
    assert console.after(4) == []


def test_last_words_of_a_dying_rank_are_left_to_the_verdict(console: Console) -> None:
    console.say(1, "ValueError: bad\n")
    console.now += 0.6
    console.echo.look()
    console.echo.muted = True
    assert console.after(10) == []


def test_a_flood_is_cut(console: Console) -> None:
    console.say(1, "".join(f"ERROR: {number}\n" for number in range(50)))
    shown = console.after(4)
    assert len(shown) == MOST_LINES + 1 and "40 more" in shown[-1]
    assert len(console.echo._lines) == 50
    console.after(2 * AGAIN_SECONDS)
    assert not console.echo._lines, "lines that are not said again are forgotten"
