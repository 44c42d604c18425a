"""One teller: what reaches metrics.jsonl, TensorBoard, W&B and the eye, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import Track
from engine.errors import WishError
from engine.track import Line, Meter, Progress, Tracker, count, duration, memory, memory_bytes, read


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_numbers_and_forgets_what_is_run_again(tmp_path: Path) -> None:
    with Tracker(tmp_path, Track(tensorboard=True)) as tracker:
        for step in (1, 2, 3):
            tracker.log(
                {"step": step, "loss": step / 4, "kind": "text", "flag": True, "verdicts": {"passed": step}}
            )
        tracker.log({"event": "no step"})
    with Tracker(tmp_path, Track(tensorboard=True)) as tracker:
        assert tracker.truncate_after(1) == 2
        tracker.log({"step": 2, "loss": 9.0})
    assert scalars(tmp_path)["loss"] == [(1, 0.25), (2, 9.0)]
    assert scalars(tmp_path)["verdicts/passed"] == [(1, 1.0)]
    assert set(scalars(tmp_path)) == {"loss", "verdicts/passed"}
    assert [record.get("step") for record in read(tmp_path / "metrics.jsonl")] == [1, None, 2]


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.finished = False

    def define_metric(self, *_: object, **__: object) -> None: ...

    def log(self, numbers: dict[str, Any]) -> None:
        self.logged.append(numbers)

    def finish(self) -> None:
        self.finished = True


def test_wandb_continues_one_run_for_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        started.append(options)
        runs.append(FakeRun())
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_API_KEY", "from the environment")
    for _ in range(2):
        with Tracker(tmp_path, Track(wandb="code"), config={"seed": 3}) as tracker:
            tracker.log({"step": 5, "loss": 0.5, "note": "text"})
    assert runs[0].logged == [{"loss": 0.5, "step": 5}] and runs[0].finished
    assert started[0]["project"] == "code" and started[0]["config"] == {"seed": 3}
    assert started[0]["id"] == started[1]["id"] and started[1]["resume"] == "allow"
    assert "from the environment" not in str(started)


def test_wandb_without_package_or_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(WishError, match="'code', but the wandb package is not installed: pip install wandb"):
        Tracker(tmp_path, Track(wandb="code"))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace())
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(WishError, match="WANDB_API_KEY is not set and nobody is logged in"):
        Tracker(tmp_path, Track(wandb="code"))


def test_wandb_login_is_as_good_as_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: FakeRun()))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    Tracker(tmp_path / "run", Track(wandb="code")).close()
    (tmp_path / "netrc").write_text("machine elsewhere.example login user password secret\n")
    with pytest.raises(WishError, match="nobody is logged in"):
        Tracker(tmp_path / "run", Track(wandb="code"))


def test_tensorboard_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(WishError, match="pip install tensorboard"):
        Tracker(tmp_path, Track(tensorboard=True))


def test_other_ranks_tell_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Tracker(
        tmp_path / "run", Track(tensorboard=True, wandb="x"), enabled=False, stream=stream
    ) as tracker:
        tracker.log({"step": 1})
        tracker.progress(Progress(1, 2))
        tracker.say("hello")
        assert tracker.truncate_after(0) == 0
    assert not (tmp_path / "run").exists() and stream.getvalue() == ""


def test_the_room_imports_without_torch() -> None:
    program = "import sys, engine.track; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_plain_lines_now_and_then_and_at_both_ends() -> None:
    clock, stream = Clock(), io.StringIO()
    line = Line(stream, clock=clock)
    for step in range(1, 101):
        line.show(Progress(step, 100, loss=1 / step))
        clock.now += 0.5
    steps = [int(text.split()[1].split("/")[0]) for text in stream.getvalue().splitlines()]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_all_parts_of_a_line() -> None:
    stream = io.StringIO()
    progress = Progress(
        step=30,
        total=600,
        loss=1.23456,
        learning_rate=0.0002,
        tokens_per_second=12345.0,
        trained_tokens_per_second=987.0,
        memory_bytes=3 * 2**30,
        eta_seconds=200,
        scores={"pass@1": 0.4217},
    )
    Line(stream).show(progress)
    assert stream.getvalue() == (
        "step  30/600  loss 1.2346  pass@1 42.2%  eta 3m20s  12.3k tok/s (987 trained)  lr 2.00e-04  mem 3.0 GiB\n"
    )


def test_a_living_line_rewrites_itself_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    clock, stream = Clock(), io.StringIO()
    line = Line(stream, live=True, clock=clock)
    for step in (1, 2, 3):
        line.show(Progress(step, 3, loss=0.5, learning_rate=1e-4, tokens_per_second=1e5, eta_seconds=9))
        clock.now += 1
    line.say("step 3: saved")
    line.close()
    text = stream.getvalue()
    drawn = text.replace("\x1b[2K", "").replace("\n", "\r").split("\r")
    assert all(len(part) < 60 for part in drawn)
    assert text.count("\n") == 2 and text.endswith("\n")
    assert "step 3: saved\n" in text and text.index("saved") < text.rindex("step 3/3")


def test_speed_is_of_training_and_the_end_of_everything() -> None:
    clock = Clock()
    meter = Meter(window=4, clock=clock)
    assert (meter.tokens_per_second, meter.eta_seconds(10)) == (0.0, None)
    clock.now += 100  # compiling, say: it leaves the window
    meter.step(1000, 10)
    for _ in range(4):
        clock.now += 2
        with meter.aside():
            clock.now += 3
        meter.step(1000, 500)
    assert meter.tokens_per_second == pytest.approx(500)
    assert meter.trained_tokens_per_second == pytest.approx(250)
    assert meter.seconds_per_step == pytest.approx(5)
    assert meter.eta_seconds(10) == pytest.approx(50)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (count(0), "0"),
        (count(950), "950"),
        (count(999.6), "1.0k"),
        (count(1234), "1.2k"),
        (count(99_960), "100k"),
        (count(5_600_000), "5.6M"),
        (duration(0.4), "0s"),
        (duration(59.6), "1m00s"),
        (duration(200), "3m20s"),
        (duration(3599.7), "1h00m"),
        (duration(3900), "1h05m"),
        (duration(90_000), "1d01h"),
        (memory(400 * 2**20), "400 MiB"),
        (memory(1536 * 2**20), "1.5 GiB"),
    ],
)
def test_numbers_for_the_eye(shown: str, said: str) -> None:
    assert shown == said


def test_memory_is_this_process() -> None:
    assert 5 * 2**20 < memory_bytes() < 2**36
