"""AdaLoRA's budget: its schedule, and step by step the same weights as PEFT's own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import Run
from engine.dist import World
from engine.model import Orthogonality, adapt, load_model
from engine.train.budget import Budget, Schedule
from engine.train.replica import Replica

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, device=CPU, accelerator=None, control=None)  # type: ignore[arg-type]
STEPS, RATE = 20, 1e-2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return Run.model_validate(
        {
            "output": str(folder / "out"),
            "model": {"path": str(folder)},
            "adapter": {
                "kind": "adalora",
                "rank": 6,
                "target_rank": 2,
                "budget_start": 0.1,
                "budget_end": 0.7,
                "budget_every": 3,
            },
            "train": {"weight_decay": 0, "clip_norm": 1e6},
            "parallel": {"device": "cpu", "precision": "fp32"},
            "data": {"train": [{"path": "rows.jsonl"}]},
        }
    )


def tokens(step: int) -> torch.Tensor:
    return torch.randint(96, (4, 16), generator=torch.Generator().manual_seed(step))


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def theirs(run: Run) -> Any:
    """PEFT's AdaLoRA over the same base, from the same random weights."""
    wish = AdaLoraConfig(
        init_r=6,
        target_r=2,
        tinit=2,
        tfinal=6,
        deltaT=3,
        total_step=STEPS,
        lora_alpha=32,
        orth_reg_weight=0.5,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    base = load_model(run, CPU)
    torch.manual_seed(run.seed)
    return get_peft_model(base, wish).train()


def test_every_step_is_that_of_peft(run: Run) -> None:
    # In double precision, as Adam makes a step of full size out of a gradient of which rounding alone is left.
    mine, other = adapt(load_model(run, CPU), run).train().double(), theirs(run).double()
    orthogonality = Orthogonality(mine, run.adapter)
    engine = Replica(mine, run, ALONE)
    budget = Budget(engine, run.adapter, ALONE, steps=STEPS)
    train, theirs_trained = run.train, [p for p in other.parameters() if p.requires_grad]
    adam = {"betas": (train.beta1, train.beta2), "eps": train.epsilon, "weight_decay": 0}
    optimizer = torch.optim.AdamW(theirs_trained, lr=RATE, **adam)
    chosen = {}
    for step in range(1, STEPS + 1):
        halves = tokens(step).chunk(2)
        orthogonality.share(len(halves))
        for part in halves:
            engine.backward(loss_of(mine, part) / 2, last=True)
        with budget.kept(step) as left:
            engine.step(RATE)
        if left:
            chosen[step] = sum(left)
        ids = tokens(step)
        other(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        other.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        ours = trained(mine)
        for name, weight in trained(other).items():
            torch.testing.assert_close(
                ours[name], weight, atol=1e-6, rtol=1e-4, msg=f"{name} after step {step}"
            )
            if ".lora_E." in name:
                assert torch.equal(ours[name] == 0, weight == 0), f"{name} after step {step}"
    layers = 2 * 7
    assert chosen == {3: 6 * layers - 13, 6: 44, 9: 32, 12: 28, 14: 28}
    zeros = [int((weight == 0).sum()) for name, weight in trained(mine).items() if ".lora_E." in name]
    assert sum(zeros) == 4 * layers and len(set(zeros)) > 1, "ranks went where they matter"


def test_ranks_shrink_by_a_cubic_and_then_stay() -> None:
    schedule = Schedule(full=12, target=8, first=10, last=60, every=10)
    assert [step for step in range(1, 64) if schedule.due(step)] == [20, 30, 40, 50, 60, 61, 62, 63]
    assert [schedule.ranks(step, 10) for step in (5, 10, 20, 35, 50, 60, 99)] == [
        120,
        120,
        100,
        85,
        80,
        80,
        80,
    ]


def test_other_adapters_have_no_budget(run: Run) -> None:
    lora = run.model_copy(update={"adapter": run.adapter.model_copy(update={"kind": "lora"})})
    engine = Replica(adapt(load_model(lora, CPU), lora), lora, ALONE)
    budget = Budget(engine, lora.adapter, ALONE, steps=STEPS)
    before = trained(engine.model)
    with budget.kept(STEPS) as left:
        pass
    assert not left
    assert all(torch.equal(before[name], weight) for name, weight in trained(engine.model).items())


def test_what_is_chosen_is_chosen_again_after_a_resume(run: Run, tmp_path: Path) -> None:
    engine = Replica(adapt(load_model(run, CPU), run).train(), run, ALONE)
    budget = Budget(engine, run.adapter, ALONE, steps=STEPS)
    for step in range(1, 16):
        engine.backward(loss_of(engine.model, tokens(step)), last=True)
        with budget.kept(step):
            engine.step(RATE)
    later = Budget(engine, run.adapter, ALONE, steps=STEPS)
    engine.backward(loss_of(engine.model, tokens(16)), last=True)
    zero = {name: weight == 0 for name, weight in trained(engine.model).items() if ".lora_E." in name}
    with later.kept(16) as left:
        engine.step(RATE)
    assert sum(left) == 28
    for name, weight in trained(engine.model).items():
        if name in zero:
            assert torch.equal(weight == 0, zero[name])
