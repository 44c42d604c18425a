"""metrics.jsonl survives kills, torn lines and resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import TemperError
from engine.track import Journal, read


def test_a_record_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    journal = Journal(path)
    journal.append({"step": 1, "loss": 0.1 + 0.2, "nested": {"k": (1, 2)}})
    journal.append({"step": 2, "loss": float("nan"), "grad": float("-inf")})
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert abs(first.pop("time") - time.time()) < 60
    assert first == {"step": 1, "loss": 0.1 + 0.2, "nested": {"k": [1, 2]}}
    assert (second["loss"], second["grad"]) == (None, None)
    journal.close()
    journal.close()


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ('{"step": 1}\n{"step": 2}\n', [1, 2, 9]),
        ('{"step": 1}\n{"step": 2', [1, 9]),
        ('{"step": 1}\n{"step": 2}', [1, 2, 9]),
        ('{"st', [9]),
        ("", [9]),
    ],
)
def test_a_torn_last_line_is_repaired_at_open(tmp_path: Path, text: str, steps: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    Journal(path).append({"step": 9})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == steps
    assert [record["step"] for record in read(path)] == steps


def test_steps_that_will_run_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.append({"event": "started"})
    for step in (1, 2, 3, 4):
        journal.append({"step": step})
    before = path.read_text().splitlines()
    assert journal.truncate_after(2) == 2
    assert path.read_text().splitlines() == before[:3]
    assert journal.truncate_after(2) == 0
    journal.append({"step": 3})
    assert [record.get("step") for record in read(path)] == [None, 1, 2, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_kill_minus_nine_loses_the_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    program = (
        "import sys, pathlib\n"
        "from engine.track.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for step in range(10**9):\n"
        "    journal.append({'step': step, 'text': 'x' * 300})\n"
        "    print(step, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(200)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout.read().splitlines()]
    child.wait()
    Journal(path).append({"step": -1})
    steps = [record["step"] for record in read(path)]
    assert steps[-1] == -1
    assert steps[:-1] == list(range(len(steps) - 1))
    assert steps[-2] >= said[-1]


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    journal = Journal(tmp_path / "metrics.jsonl")
    journal._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - the journal's to close
    with pytest.raises(TemperError, match=r"metrics\.jsonl cannot be written .*No space left"):
        journal.append({"step": 1})
