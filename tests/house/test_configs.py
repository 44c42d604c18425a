"""Every YAML under configs/ is a run that could be started: schema, rules, and the arithmetic its comment promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from engine.config import Run, check, dump, load
from launch.command import plan

ROOT = Path(__file__).parent.parent.parent
# configs/cluster describes places, not runs.
FILES = sorted(
    file
    for file in (ROOT / "configs").rglob("*.yaml")
    if file.relative_to(ROOT / "configs").parts[0] != "cluster"
)
RECIPES = [
    file for file in FILES if file.parent.name in ("sft", "lora", "qlora", "fim") and file.stem != "defaults"
]
HEAD = re.compile(r"For (\d+) x (\d+) GB .*\n# .*= ([\d.]+) GB a GPU")
MODELS = (
    "qwen2.5-coder-0.5b qwen2.5-coder-1.5b qwen2.5-coder-3b qwen2.5-coder-7b qwen2.5-coder-14b qwen2.5-coder-32b"
    " qwen3-coder-30b-a3b starcoder2-3b starcoder2-7b starcoder2-15b deepseek-coder-1.3b deepseek-coder-6.7b"
    " codellama-7b codellama-13b llama-3.1-8b llama-3.2-1b llama-3.2-3b"
).split()


def read(file: Path) -> Run:
    return load(file).run


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_config_is_a_run_without_a_clash(file: Path) -> None:
    run = read(file)
    assert check(run) == []
    assert Run.model_validate(yaml.safe_load(dump(run))) == run


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_config_begins_with_what_it_is_for(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_no_two_configs_write_to_the_same_folder() -> None:
    outputs = [read(file).output for file in FILES]
    assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize("method", ["sft", "lora", "qlora"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_recipe_for_every_method(method: str, model: str) -> None:
    file = ROOT / "configs" / method / f"{model}.yaml"
    if (method, model) == ("qlora", "qwen3-coder-30b-a3b"):
        assert not file.exists(), "its experts are no linear layers, so 4 bits would not reach them"
        return
    kind = read(file).adapter.kind
    assert kind == {"sft": "full"}.get(method, method)
    assert file.stem == Path(read(file).output).name


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_recipe_fits_the_hardware_it_names(file: Path) -> None:
    found = HEAD.search(file.read_text())
    assert found, "the comment on top must name the GPUs and the bytes"
    gpus, size, states = int(found[1]), float(found[2]), float(found[3])
    run = read(file)
    assert run.parallel.processes == gpus
    assert states < 0.8 * size
    billions = float(re.search(r"\(?([\d.]+) B x", file.read_text())[1])  # type: ignore[index]
    shards = gpus if run.parallel.strategy == "zero3" else 1
    if run.adapter.kind == "full":
        expected = billions * (2 + 16 / gpus if run.parallel.strategy == "zero2" else 18 / shards)
    elif run.adapter.kind == "lora":
        expected = billions * 2 / shards
    else:
        embeddings = float(re.search(r"\+ ([\d.]+) B x 2 bytes", file.read_text())[1])  # type: ignore[index]
        expected = (billions * 0.52 + embeddings * 2) / shards
    assert states == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_config_divides_its_batch_and_has_a_launch_line(file: Path) -> None:
    run = read(file)
    if run.data is not None:
        assert run.train.global_batch % (run.train.micro_batch * run.parallel.processes) == 0
    verb = "train" if run.data is not None else "evaluate"
    line = plan(run, verb, str(file.relative_to(ROOT))).line
    assert f"--num_processes {run.parallel.processes}" in line
