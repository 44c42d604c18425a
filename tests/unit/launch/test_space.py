"""What a space file may say, and what is refused before a trial is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import WishError
from launch.space import read_space, settings, snippet

RUN = """
output: {folder}/run
model: {{path: {folder}/model}}
data: {{train: [{{path: {folder}/rows.jsonl}}]}}
parallel: {{device: cpu}}
"""


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(folder=tmp_path))
    return str(file)


def space(tmp_path: Path, run_file: str, text: str):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    return read_space(file, run_file)


def test_ranges_and_choices_become_settings(tmp_path: Path, run_file: str) -> None:
    found = space(
        tmp_path,
        run_file,
        "train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        "train.warmup_steps: {low: 0, high: 10, step: 5}\n"
        "adapter.target_modules: {choices: [all-linear, [q_proj, v_proj]]}\n",
    )
    assert [one.kind for one in found] == ["float", "int", "choice"]
    words = settings(
        found,
        {
            "train.learning_rate": 2e-4,
            "train.warmup_steps": 5,
            "adapter.target_modules": '["q_proj", "v_proj"]',
        },
    )
    assert words == (
        "train.learning_rate=0.0002",
        "train.warmup_steps=5",
        'adapter.target_modules=["q_proj", "v_proj"]',
    )
    assert "warmup_steps: 5" in snippet(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.learning_rat: {low: 1e-5, high: 1e-3}", "learning_rat"),
        ("train.learning_rate: {low: 1e-3, high: 1e-5}", "low must be below high"),
        ("train.learning_rate: {low: 0, high: 1e-3, log: true}", "above 0"),
        ("train.learning_rate: {lo: 1e-5, high: 1e-3}", "did you mean low"),
        ("train.warmup_steps: {low: 0, high: 10, step: 3}", "whole step"),
        ("train.optimizer: {choices: [adamw, sgd]}", "sgd"),
        ("adapter.rank: {choices: [8, 8]}", "twice"),
        ("output: {choices: [a, b]}", "folder of its own"),
        ("checkpoint.metric: {choices: [loss]}", "--metric"),
        ("train.learning_rate: 3", "write {low"),
        ("{}", "names no key"),
    ],
)
def test_what_no_trial_could_use_is_refused(tmp_path: Path, run_file: str, text: str, said: str) -> None:
    with pytest.raises(WishError) as refused:
        space(tmp_path, run_file, text)
    assert said in str(refused.value)
