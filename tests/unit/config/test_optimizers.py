"""A setting that its optimizer does not read is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import check, load

RUN = """
output: {folder}/run
model: {{path: {folder}/model}}
data: {{train: [{{path: {folder}/rows.jsonl}}]}}
parallel: {{device: cpu}}
"""


def findings(folder: Path, *words: str) -> list[str]:
    file = folder / "run.yaml"
    file.write_text(RUN.format(folder=folder))
    return [finding.what for finding in check(load(file, words).run)]


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [("lion", "epsilon=1e-6"), ("adafactor", "beta1=0.8"), ("paged_lion_8bit", "epsilon=1e-6")],
)
def test_settings_without_effect_are_refused(tmp_path: Path, optimizer: str, key: str) -> None:
    found = findings(tmp_path, f"train.optimizer={optimizer}", f"train.{key}")
    assert any(f"train.optimizer is {optimizer}, which does not read it" in text for text in found)


def test_settings_that_are_read_are_not(tmp_path: Path) -> None:
    assert not [t for t in findings(tmp_path, "train.optimizer=lion", "train.beta2=0.99") if "not read" in t]
    assert not [t for t in findings(tmp_path, "train.epsilon=1e-6") if "not read" in t]
