"""What a run is planned to need is left in its folder, and told beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import protocol
from engine.config import Run
from engine.config.sections import Track
from engine.errors import WishError
from engine.track import Tracker, read
from engine.train.loop import _tell_memory
from launch.architecture import architecture
from launch.memory import estimate
from launch.outlook import checkpoint_bytes, leave_prediction
from launch.states import job

ROOT = Path(__file__).parents[3]
TINY = ROOT / "configs" / "tiny" / "base"


def wish(tmp_path: Path, **sections: dict[str, Any]) -> Run:
    tree = {
        "output": str(tmp_path / "run"),
        "model": {"path": str(TINY)},
        "data": {"train": [{"path": "x.jsonl"}]},
    }
    return Run.model_validate({**tree, "parallel": {"device": "cuda"}, **sections})


def test_the_prediction_is_the_plan(tmp_path: Path) -> None:
    run = wish(tmp_path)
    leave_prediction(run)
    left = protocol.read_prediction(run.folder)
    memory = estimate(job(run, architecture(run)))
    assert left is not None and left.size == memory.tensors == sum(left.terms.values())


def test_changes_that_need_less_are_left_with_it_the_mildest_first(tmp_path: Path) -> None:
    run = wish(tmp_path, train={"micro_batch": 4, "global_batch": 16})
    leave_prediction(run)
    left = protocol.read_prediction(run.folder)
    assert left is not None and left.changes and left.total > left.size
    assert all(change.size < left.total for change in left.changes)
    counts = [change.words.count("--set") for change in left.changes]
    assert counts == sorted(counts) and max(counts) == 2
    single = [change for change in left.changes if change.words.count("--set") == 1]
    assert [c.size for c in single] == sorted((c.size for c in single), reverse=True)
    assert {"--set train.micro_batch=1", "--set train.micro_batch=2"} <= {change.words for change in single}


@pytest.mark.parametrize(
    "sections",
    [{"parallel": {"device": "cpu"}}, {"model": {"path": "org/unheard-of"}}],
    ids=["cpu ranks", "a model that is not here"],
)
def test_no_prediction_is_left_where_there_is_none(tmp_path: Path, sections: dict[str, Any]) -> None:
    leave_prediction(wish(tmp_path))
    run = wish(tmp_path, **sections)
    leave_prediction(run)
    assert protocol.read_prediction(run.folder) is None, "an older one must not be taken for this attempt's"


def test_planned_and_measured_stand_side_by_side(tmp_path: Path) -> None:
    run = wish(tmp_path)
    leave_prediction(run)
    for device in ("cpu", "cuda"):
        world = SimpleNamespace(device=SimpleNamespace(type=device))
        with Tracker(run.folder, Track(live="no")) as tracker:
            _tell_memory(SimpleNamespace(run=run, world=world, tracker=tracker))  # type: ignore[arg-type]
    records = read(run.folder / protocol.METRICS)
    assert [record["event"] for record in records] == ["memory"], "CPU ranks have nothing to compare"
    planned = json.loads((run.folder / protocol.PLAN).read_text())["size"]
    assert records[0]["planned_mb"] == planned / 2**20 and records[0]["measured_mb"] > 0


def test_a_checkpoint_is_as_large_as_planned(tmp_path: Path) -> None:
    import torch

    from engine.checkpoint.pieces import write
    from engine.model import load_model
    from engine.train.replica import Replica

    run = wish(tmp_path, parallel={"device": "cpu"})
    world: Any = SimpleNamespace(first=True, rank=0, size=1, device=torch.device("cpu"))
    replica = Replica(load_model(run, world.device), run, world)
    for master in replica.masters:
        master.grad = torch.ones_like(master)
    replica.optimizer.step()
    write(tmp_path, 0, replica.pieces(), replica.scaling)
    weights = sum(tensor.nbytes for tensor in replica.weights(every_rank=True).values())
    written = (tmp_path / "rank-0.pt").stat().st_size + weights
    assert checkpoint_bytes(run, architecture(run)) == pytest.approx(written, rel=0.02)


def test_chunks_of_logits_are_as_large_as_planned() -> None:
    from engine.model.head import ELEMENTS
    from launch.activations import CHUNK

    assert CHUNK == ELEMENTS


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "ia3"},
        {"kind": "vera"},
        {"kind": "oft"},
        {"kind": "lora", "dora": True},
        {"kind": "qlora", "new_tokens": ["<a>"]},
    ],
)
def test_an_adapter_that_was_never_measured_is_not_planned(tmp_path: Path, adapter: dict[str, Any]) -> None:
    run = wish(tmp_path, adapter=adapter)
    with pytest.raises(WishError, match=r"the memory of adapter\..* is not known here"):
        estimate(job(run, architecture(run)))
    leave_prediction(run)
    assert protocol.read_prediction(run.folder) is None


def test_a_start_changes_no_count(tmp_path: Path) -> None:
    plain, moved = (
        estimate(job(run, architecture(run)))
        for start in ("default", "pissa")
        for run in [wish(tmp_path, adapter={"kind": "lora", "init": start})]
    )
    assert plain == moved
