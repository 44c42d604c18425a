"""`temper plan` from the command line: what is printed is what is run, what does not fit is told with a way out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import Run, Source, check, dump, load
from engine.data.sources import read
from engine.errors import WishError
from launch.activations import inputs, saved
from launch.architecture import architecture
from launch.cluster import place as place_of
from launch.command import plan as launch_plan
from launch.cost import extent, measured, pace
from launch.fit import fits, search
from launch.memory import GIB, estimate
from launch.outlook import outlook
from launch.states import job

ROOT = Path(__file__).parents[3]
SEVEN = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}


def temper(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "launch", *words], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A full fine-tune of a 7B model on four ranks."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(SEVEN))
    tree = {
        "output": str(tmp_path / "run"),
        "model": {"path": str(tmp_path / "model")},
        "data": {"train": [{"path": str(tmp_path / "rows.jsonl")}], "max_length": 2048},
        "train": {"global_batch": 32, "micro_batch": 2},
        "parallel": {"strategy": "zero2", "processes": 4, "device": "cuda"},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(tree))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 100)
    return file


def data(*words: str) -> tuple[int, Any]:
    done = temper("plan", *words, "--json")
    return done.returncode, json.loads(done.stdout)


def test_what_is_printed_is_what_is_run(run_file: Path) -> None:
    words = (str(run_file), "--set", "seed=3", "--processes", "4")
    line = temper("train", *words, "--dry-run").stdout.strip()
    assert line in [text.strip() for text in temper("plan", *words).stdout.splitlines()]
    script = temper("plan", *words, "--script").stdout
    assert script.splitlines()[-1] == f"exec env {line}"
    _, found = data(*words)
    made = launch_plan(
        load(run_file, ["seed=3"]).run, "train", str(run_file), ("seed=3", "parallel.processes=4")
    )
    assert found["command"]["argv"] == list(made.argv)
    assert found["command"]["environment"] == dict(made.environment)


def test_the_script_is_a_shell_script(run_file: Path) -> None:
    script = temper("plan", str(run_file), "--script").stdout
    # With `env` alone in place of the launcher, the shell prints the variables it was told to set.
    harmless = script.replace("accelerate launch", "env #")
    done = subprocess.run(["bash", "-c", harmless], capture_output=True, text=True, check=True)
    assert "PET_SHUTDOWN_TIMEOUT=300" in done.stdout.splitlines()


def test_what_does_not_fit_ends_with_three_and_a_way_out(run_file: Path) -> None:
    done = temper("plan", str(run_file), "--on", "4xl4")
    assert done.returncode == 3 and "it does not fit" in done.stdout and done.stderr == ""
    code, found = data(str(run_file), "--on", "4xh100", "--set", "train.micro_batch=8")
    assert code == 3 and found["fits"] is False
    change = found["changes"][0]
    again, found = data(str(run_file), "--on", "4xh100", "--set", "train.micro_batch=8",
                        *[f"--set={key}={json.dumps(value)}" for key, value in change.items()])  # fmt: skip
    assert again == 0 and found["fits"] is True


def test_fit_proposes_overrides_that_are_taken(run_file: Path, tmp_path: Path) -> None:
    done = temper("plan", str(run_file), "--on", "4xh100", "--set", "train.micro_batch=8", "--fit")
    assert done.returncode == 0
    tree = yaml.safe_load(run_file.read_text())
    for section, values in yaml.safe_load(done.stdout).items():
        tree[section] = tree.get(section, {}) | values
    better = tmp_path / "better.yaml"
    better.write_text(yaml.safe_dump(tree))
    assert temper("plan", str(better), "--on", "4xh100").returncode == 0


def test_fit_that_finds_nothing_says_so(run_file: Path) -> None:
    done = temper("plan", str(run_file), "--on", "4xt4", "--fit", "--set", "parallel.precision=fp16",
                  "--set", "data.max_length=32768")  # fmt: skip
    assert done.returncode == 3 and "nothing fits" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--on", "8xh10"], "did you mean h100"),
        (["--on", "2xh100"], "use --processes 2"),
        (["--on", "4xt4"], "use parallel.precision fp16"),
        (["--on", "4xh100", "--set", "parallel.device=cpu"], "leave --on out"),
        (["--fit"], "add --on"),
        (["--model-config", "/no/such/config.json"], "no model folder"),
        (["--measured", "/no/such/run"], "holds no records"),
        (["--set", "train.global_batch=10"], "not divisible"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_sentence(run_file: Path, words: list[str], told: str) -> None:
    done = temper("plan", str(run_file), *words)
    assert done.returncode == 2 and told in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_rows_and_steps_are_told_where_they_can_be_known(run_file: Path) -> None:
    extent = data(str(run_file))[1]["extent"]
    assert (extent["rows"], extent["steps"]) == (100, 4)
    assert extent["tokens"] == 100 * 2048
    assert data(str(run_file), "--set", "train.steps=7")[1]["extent"]["steps"] == 7
    assert data(str(run_file), "--set", "data.train=[{path: org/name}]")[1]["extent"]["steps"] is None


def test_terms_add_up_and_name_the_largest(run_file: Path) -> None:
    memory = data(str(run_file), "--on", "4xh100")[1]["memory"]
    assert sum(memory["terms"].values()) == memory["tensors"] == max(memory["phases"].values())
    assert memory["total"] == memory["tensors"] + memory["context"] + memory["margin"]
    assert memory["terms"][memory["binding"]] == max(memory["terms"].values())


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("one.jsonl", '{"text": "a"}', 1),
        ("blank.jsonl", '{"text": "a"}\n\n  \r\n{"text": "b"}\n\n', 2),
        ("LOUD.JSONL", '{"text": "a"}\n', 1),
    ],
    ids=["no end of the last line", "lines without text", "a suffix in capitals"],
)
def test_rows_are_counted_as_they_are_read(tmp_path: Path, name: str, text: str, count: int) -> None:
    (tmp_path / name).write_text(text)
    tree = {"model": {"path": "org/name"}, "data": {"train": [{"path": str(tmp_path / name)}]}}
    run = Run.model_validate({"output": "runs/x", **tree, "train": {"epochs": 3, "global_batch": 1}})
    assert len(read(Source(path=str(tmp_path / name))).rows) == count
    assert (extent(run).rows, extent(run).steps) == (3 * count, 3 * count)


def test_rows_at_home_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    tree = {"model": {"path": "org/name"}, "data": {"train": [{"path": "~/rows.jsonl"}]}}
    assert extent(Run.model_validate({"output": "runs/x", **tree})).rows == 1


def leave_records(past: Path, run: Run) -> None:
    """What a training on four GPUs leaves."""
    past.mkdir(exist_ok=True)
    (past / "run.yaml").write_text(dump(run))
    (past / "facts.json").write_text(json.dumps({"world_size": 4, "device": "cuda"}))
    lines = [
        {"step": step, "tokens_per_second": speed, "memory_mb": 61440.0}
        for step, speed in enumerate([1, 900, 1000, 1100])
    ]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"event": "saved"}])
    (past / "metrics.jsonl").write_text(f'{text}{{"tokens_per_second": 99')


def test_a_past_run_replaces_the_estimate(run_file: Path, tmp_path: Path) -> None:
    leave_records(tmp_path / "past", load(run_file).run)
    found = data(str(run_file), "--on", "4xh100", "--measured", str(tmp_path / "past"))[1]
    assert found["pace"]["measured"] and found["pace"]["tokens_per_second"] == 1000
    assert found["seconds"] == pytest.approx(100 * 2048 / 1000)
    leave_records(tmp_path / "run", load(run_file).run)
    assert data(str(run_file), "--on", "4xh100")[1]["pace"]["measured"], "its own records need no naming"


@pytest.mark.parametrize(
    "override",
    [
        "model.path=org/other",
        "model.activation_checkpointing=true",
        "adapter.kind=lora",
        "data.max_length=1024",
        "train.micro_batch=4",
        "parallel.strategy=zero3",
        "parallel.offload_optimizer=true",
    ],
)
def test_another_run_says_nothing_of_this_one(run_file: Path, tmp_path: Path, override: str) -> None:
    leave_records(tmp_path / "past", load(run_file, [override]).run)
    run = load(run_file).run
    with pytest.raises(WishError, match=re.escape(override.partition("=")[0])):
        measured(tmp_path / "past", run)
    leave_records(tmp_path / "run", load(run_file, [override]).run)
    found = outlook(run, launch_plan(run, "train", str(run_file), ()), architecture(run), None)
    assert found.measured is None, "nor do such records in the run's own folder"


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"world_size": 2, "device": "cuda"}, "world_size is 2"),
        ({"world_size": 4, "device": "cpu"}, "device"),
    ],
)
def test_other_hardware_says_nothing_of_this(
    run_file: Path, tmp_path: Path, facts: dict[str, Any], told: str
) -> None:
    leave_records(tmp_path / "past", load(run_file).run)
    (tmp_path / "past" / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(WishError, match=told):
        measured(tmp_path / "past", load(run_file).run)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("facts.json", "[]", "no readable records"),
        ("metrics.jsonl", "[1]\n", "no readable records"),
        ("metrics.jsonl", '"}"\n', "no readable records"),
        ("metrics.jsonl", '{"tokens_per_second": "fast"}\n', "no records of a speed"),
        ("run.yaml", "model: [", "not valid YAML"),
    ],
)
def test_damaged_records_are_refused(run_file: Path, tmp_path: Path, name: str, text: str, told: str) -> None:
    leave_records(tmp_path / "past", load(run_file).run)
    (tmp_path / "past" / name).write_text(text)
    with pytest.raises(WishError, match=told):
        measured(tmp_path / "past", load(run_file).run)


def test_time_on_a_cpu_is_told_of_ranks(run_file: Path) -> None:
    cpu = ("--set", "parallel.device=cpu", "--set", "parallel.strategy=ddp")
    unknown = temper("plan", str(run_file), *cpu).stdout
    assert "--measured" in unknown and "--on" not in unknown, "there is no hardware to name for CPU ranks"
    run = load(run_file, ["parallel.device=cpu", "parallel.strategy=ddp"]).run
    leave_records(run.folder, run)
    (run.folder / "facts.json").write_text(json.dumps({"world_size": 4, "device": "cpu"}))
    hub = ("--set", "data.train=[{path: org/name}]")
    text = temper("plan", str(run_file), *cpu, *hub).stdout
    assert "rank-hours for each million tokens" in text and "GPU-hours" not in text


def test_no_speed_is_guessed_in_fp32(run_file: Path) -> None:
    words = (str(run_file), "--on", "4xh200", "--set", "parallel.precision=fp32")
    text = temper("plan", *words).stdout
    assert "there is no estimate in fp32" in text and "tokens/s" not in text
    code, found = data(*words, "--set", "train.micro_batch=8")
    assert code == 3 and found["pace"] is None and found["seconds"] is None
    sizes = [len(change) for change in found["changes"]]
    assert sizes == sorted(sizes) and len(found["fastest"]) == sizes[0], "the fewest changes come first"
    assert "tokens/s" not in temper("plan", *words, "--fit").stdout


def test_time_is_told_as_an_estimate_with_its_price(run_file: Path, tmp_path: Path) -> None:
    place = tmp_path / "c.yaml"
    place.write_text("kind: local\ngpus_per_node: 4\ngpu: h100\nprice_per_gpu_hour: 2.5\n")
    text = temper("plan", str(run_file), "--on", str(place), "--set", "train.steps=100000").stdout
    told = re.search(r"time \(an estimate.*?([\d.]+) GPU-hours, price ([\d.]+)", text, re.DOTALL)
    assert told and float(told[2]) == pytest.approx(2.5 * float(told[1]), rel=0.01)
    unknown = temper("plan", str(run_file), "--on", "4xh100", "--set", "data.train=[{path: org/name}]").stdout
    assert "for each million tokens" in unknown


def test_every_way_that_is_proposed_is_allowed_and_fits(run_file: Path) -> None:
    run = load(run_file).run
    model, place = architecture(run), place_of("4xa100-40gb").hardware("4xa100-40gb")
    changes = search(run, model, place)
    assert changes, "a 7B model can be trained on four A100 of 40 GB with offload"
    speeds = [change.tokens_per_second for change in changes]
    assert speeds == sorted(speeds, reverse=True)
    for change in changes:
        tried = load(run_file, [f"{key}={json.dumps(value)}" for key, value in change.overrides]).run
        assert check(tried) == []
        assert estimate(job(tried, model)) == change.memory and fits(change.memory, place, 4)


def test_more_of_anything_needs_no_less(run_file: Path) -> None:
    run = load(run_file).run
    model = architecture(run)

    def total(*overrides: str) -> float:
        return estimate(job(load(run_file, list(overrides)).run, model)).total / GIB

    small = ["train.micro_batch=1"]
    assert total(*small) < total("train.micro_batch=2") < total("train.micro_batch=4")
    assert total("data.max_length=1024") < total("data.max_length=4096")
    assert total("model.activation_checkpointing=true", "train.micro_batch=8") < total("train.micro_batch=8")
    stages = [total(f"parallel.strategy={name}", *small) for name in ("ddp", "zero1", "zero2", "zero3")]
    assert stages == sorted(stages, reverse=True)
    kinds = [total(f"adapter.kind={kind}", *small) for kind in ("full", "lora", "qlora")]
    assert kinds == sorted(kinds, reverse=True)
    offload = total("parallel.offload_optimizer=true", "parallel.strategy=zero3", *small)
    assert offload < total("parallel.strategy=zero3", *small)


def test_inputs_of_layers_are_on_the_device_or_on_the_host(run_file: Path) -> None:
    recomputed = ["model.activation_checkpointing=true", "train.micro_batch=4"]
    kept, moved = (
        load(run_file, [*recomputed, f"model.activation_offload={wish}"]).run for wish in ("false", "true")
    )
    model = architecture(kept)
    size = inputs(model, job(kept, model).batch)
    before, after = estimate(job(kept, model)), estimate(job(moved, model))
    assert after.host == before.host + size and after.total < before.total
    backward = [dict(one.phases)["backward"] for one in (before, after)]
    assert backward[0] - backward[1] == size - size // model.shape.layers, "the one at work is on the device"
    assert estimate(job(moved, model, cpu=True)).host == before.host, "there the host is where all is"


def test_ranks_that_share_rows_each_hold_a_part_of_the_activations(run_file: Path) -> None:
    long = ("data.max_length=32768", "train.micro_batch=1", "parallel.strategy=zero3", "train.global_batch=4")
    words = [word for one in (*long, "model.activation_checkpointing=true") for word in ("--set", one)]
    whole, shared = (load(run_file, [*long, f"parallel.sequence={size}"]).run for size in (1, 4))
    model = architecture(whole, None)
    kept = [saved(model, job(run, model).batch, run.adapter, checkpointing=False) for run in (whole, shared)]
    assert kept[1] == kept[0] / 4
    states = [dict(estimate(job(run, model)).phases)["optimizer"] for run in (whole, shared)]
    assert states[0] == states[1]
    told = temper("plan", str(run_file), *words, "--set", "parallel.sequence=4").stdout
    assert "4 rows = 1 group x 4 micro-batches x 1 rows" in told
    assert "4 ranks share each row: 8192 tokens of it on each" in told


def test_rows_too_long_for_a_gpu_are_proposed_to_be_shared(run_file: Path) -> None:
    config = run_file.parent / "model" / "config.json"
    config.write_text(json.dumps(SEVEN | {"max_position_embeddings": 131072}))
    one_each = ("data.max_length=131072", "train.global_batch=4", "train.micro_batch=1")
    words = [word for one in one_each for word in ("--set", one)]
    code, found = data(str(run_file), *words, "--on", "4xrtx4090")
    assert code == 3 and found["changes"]
    assert all(change["parallel.sequence"] in (2, 4) for change in found["changes"])
    code, shorter = data(str(run_file), *words, "--set", "data.max_length=2048", "--on", "4xrtx4090")
    assert code == 3 and shorter["changes"]
    assert not any("parallel.sequence" in change for change in shorter["changes"])


def test_shared_rows_cost_an_exchange_and_no_other_time(run_file: Path) -> None:
    run = load(run_file, ["data.max_length=32768", "train.micro_batch=1"]).run
    shared = load(run_file, ["data.max_length=32768", "train.micro_batch=1", "parallel.sequence=4"]).run
    model, place = architecture(run, None), place_of("4xh100").hardware("4xh100")
    one, other = (pace(job(each, model), place) for each in (run, shared))
    assert one is not None and other is not None
    assert one.tokens_per_second * 0.8 < other.tokens_per_second < one.tokens_per_second


def test_plan_does_not_import_torch(run_file: Path) -> None:
    checked = f"""
import sys
from launch.cli import temper
try:
    temper(["plan", {str(run_file)!r}, "--on", "8xh200"], standalone_mode=False)
except SystemExit:
    pass
assert not {{"torch", "transformers", "numpy"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


EXPERTS = {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "head_dim": 128}


def test_the_overview_says_of_this_run_what_the_plan_says(run_file: Path) -> None:
    file = run_file.parent / "model" / "config.json"
    file.write_text(json.dumps({**SEVEN, **EXPERTS, "model_type": "qwen3_moe"}))
    for kind in ("full", "lora", "qlora"):
        run = load(run_file, [f"adapter.kind={kind}"]).run
        found = outlook(run, launch_plan(run, "train", str(run_file), ()), architecture(run), None)
        (cell,) = (one for one in found.cells if (one.strategy, one.method) == ("zero2", kind))
        assert cell.memory == found.memory, kind


def test_experts_under_adapters_and_shards_are_not_free(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SEVEN, **EXPERTS, "model_type": "qwen3_moe"}))
    tree = {"output": "runs/x", "model": {"path": str(tmp_path)}, "data": {"train": [{"path": "x.jsonl"}]}}

    def tensors(**sections: dict[str, Any]) -> int:
        run = Run.model_validate({**tree, **sections})
        return estimate(job(run, architecture(run))).tensors

    adapters = {"kind": "lora", "target_modules": ["q_proj", "v_proj"]}
    weights = architecture(Run.model_validate(tree)).parameters
    assert tensors(adapter={"kind": "lora"}) > 1.5 * tensors(adapter=adapters) > 1.5 * 2 * weights
    sharded = {"strategy": "zero3", "processes": 8}
    whole = tensors(parallel=sharded)
    recomputed = tensors(parallel=sharded, model={"path": str(tmp_path), "activation_checkpointing": True})
    assert whole - recomputed > weights, "half of all experts' bytes, at least"
