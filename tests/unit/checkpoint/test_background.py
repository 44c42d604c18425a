"""One save at a time; what fails in the background fails the run, at the next border."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from engine.checkpoint import Piece, Progress, Saves, Store, background
from engine.config import Run
from engine.errors import TemperError

ROOT = Path(__file__).parent.parent.parent.parent


class Alone:
    """A world of one rank."""

    rank, size, first = 0, 1, True

    def share(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return


def engine(model: LlamaForCausalLM) -> Any:
    named = {name: p.detach() for name, p in model.named_parameters()}
    pieces = lambda: [Piece(name, 0, held.flatten(), {"step": 3}) for name, held in named.items()]  # noqa: E731
    return SimpleNamespace(model=model, pieces=pieces, weights=lambda every_rank: dict(named), scaling={})


Kept = tuple[Saves, Store, LlamaForCausalLM]


@pytest.fixture
def saves(tmp_path: Path) -> Kept:
    shape = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4))
    wish = {"output": str(tmp_path), "model": {"path": "m"}, "checkpoint": {"background": True}}
    run = Run.model_validate(wish)
    store = Store(tmp_path / "checkpoints")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs/tiny/base")
    world: Any = Alone()
    return (
        Saves(store, engine=engine(model), tokenizer=tokenizer, run=run, world=world, files={}),
        store,
        model,
    )


def test_what_is_written_is_the_step_it_was_asked_at(saves: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, store, model = saves
    gate = threading.Event()
    write = background.write

    def held(*args: Any) -> None:
        gate.wait(20)
        write(*args)

    monkeypatch.setattr(background, "write", held)
    weight = model.get_output_embeddings().weight
    then = weight.detach().clone()
    assert kept.save(Progress(step=5), {}, at_once=False) == []
    assert kept.state() == (0, 0, 0) and store.newest() is None
    with torch.no_grad():
        weight.fill_(7.0)
    gate.set()
    (published,) = kept.finish()
    assert published.step == 5
    found = store.newest()
    assert found is not None and found.step == 5
    rows = torch.load(found.path / "state" / "rank-0.pt", weights_only=True)["pieces"]
    name, _, master, state = rows[-1]
    assert name == "lm_head.weight" and torch.equal(master, then.flatten()) and state == {"step": 3}
    assert torch.equal(load_file(found.path / "weights" / "model.safetensors")["lm_head.weight"], then)


def test_it_is_published_at_a_border_after_all_have_written(saves: Kept) -> None:
    kept, store, _ = saves
    kept.save(Progress(step=1), {"loss": 1.0}, at_once=False)
    published = []
    for _ in range(1000):
        published += kept.agree(kept.state())
        if published:
            break
        threading.Event().wait(0.01)
    assert [each.step for each in published] == [1]
    assert kept.state() == (0, 0, 0) and kept.agree((0, 0, 0)) == []
    found = store.newest()
    assert found is not None and found.metrics == {"loss": 1.0}


def test_the_next_save_waits_for_the_one_under_way(saves: Kept) -> None:
    kept, store, _ = saves
    kept.save(Progress(step=1), {}, at_once=False)
    assert [each.step for each in kept.save(Progress(step=2), {}, at_once=False)] == [1]
    assert [each.step for each in kept.save(Progress(step=3), {}, at_once=True)] == [2, 3]
    assert [found.step for found in store.published()] == [2, 3]


def test_a_save_that_fails_is_told_at_a_border_and_leaves_the_older_ones(
    saves: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, store, _ = saves
    kept.save(Progress(step=1), {}, at_once=True)

    def broken(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(background, "write", broken)
    kept.save(Progress(step=2), {}, at_once=False)
    with pytest.raises(TemperError, match="step 2 cannot be written .*Permission denied"):
        for _ in range(1000):
            kept.agree(kept.state())
            threading.Event().wait(0.01)
    assert [found.step for found in store.published()] == [1]
    assert not store.partial(2).exists()
