"""A search is a function of its seed and its ended trials, and outlives the process that works on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from engine.errors import WishError
from launch.space import Dimension
from launch.study import JOURNAL, Method, Search, Wish

SPACE = (
    Dimension("train.learning_rate", "float", 1e-5, 1e-3, log=True),
    Dimension("adapter.rank", "choice", choices=("8", "16")),
)
WISH = Wish("run: 1\n", SPACE, "validation_loss", True, "best")


def search(folder: Path, wish: Wish = WISH) -> Search:
    found = Search(folder, Method(startup=3), seed=5)
    found.begin(wish, None)
    return found


def work(folder: Path, trials: int) -> list[tuple[str, ...]]:
    found, words = search(folder), []
    while (claimed := found.claim(trials)) is not None:
        words.append(claimed.words)
        rate = float(claimed.words[0].partition("=")[2])
        found.tell(claimed, "done", value=abs(rate - 1e-4), step=1)
        claimed.release()
    return words


def test_a_search_in_two_goes_suggests_what_one_go_does(tmp_path: Path) -> None:
    whole = work(tmp_path / "whole", 8)
    cut = [*work(tmp_path / "cut", 5), *work(tmp_path / "cut", 8)]
    assert cut == whole and len(set(whole)) == 8


def test_a_trial_of_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    code = """
        import sys, time
        sys.path.insert(0, sys.argv[2])
        from test_study import search
        from pathlib import Path
        claimed = search(Path(sys.argv[1])).claim(4)
        print(claimed.number, *claimed.words, flush=True)
        time.sleep(60)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(Path(__file__).parent)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    number, *words = child.stdout.readline().split()
    mine = search(tmp_path).claim(4)
    assert mine is not None and mine.number != int(number), "another process works on it"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"half a li')
    again = search(tmp_path).claim(4)
    assert again is not None and again.resumed
    assert (again.number, list(again.words)) == (int(number), words)


def test_another_wish_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(WishError, match="the metric was validation_loss and is loss"):
        search(tmp_path, Wish("run: 1\n", SPACE, "loss", True, "best"))


def test_best_is_of_those_that_ended_and_failures_are_told(tmp_path: Path) -> None:
    found = search(tmp_path)
    for state, value in (("done", 2.0), ("pruned", None), ("failed", None), ("done", 1.0)):
        claimed = found.claim(9)
        assert claimed is not None
        claimed.report(0.5, 1)
        found.tell(claimed, state, value=value, reason="why")
        claimed.release()
    assert [row.state for row in found.rows()] == ["done", "pruned", "failed", "done"]
    best = found.best()
    assert best is not None and (best.number, best.value) == (3, 1.0)
