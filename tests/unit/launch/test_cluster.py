"""Hardware by name and from YAML files: what is read, and what is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import WishError
from launch.hardware import GPUS, SYNONYMS, cluster

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "gpus", "name"),
    [("h100", 1, "h100"), ("8xh100", 8, "h100"), ("2 x A100-40GB", 2, "a100-40gb"), ("4x4090", 4, "rtx4090")],
)
def test_short_names(text: str, gpus: int, name: str) -> None:
    found = cluster(text)
    assert (found.gpus, found.gpu.name) == (gpus, name)


@pytest.mark.parametrize("text", ["8xh1000", "0xh100", "8x", "", "8 h100"])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WishError):
        cluster(text)


def test_the_nearest_gpu_is_named() -> None:
    with pytest.raises(WishError, match="did you mean h100"):
        cluster("8xh1000")


def test_synonyms_lead_to_the_table() -> None:
    assert set(SYNONYMS.values()) <= set(GPUS)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "cluster").glob("*.yaml")), ids=lambda file: file.name
)
def test_every_cluster_in_configs_is_one(file: Path) -> None:
    found = cluster(str(file))
    assert found.kind == "local" and found.gpus >= 1
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: local\ngpus_per_nod: 8\ngpu: h100\n", "did you mean gpus_per_node"),
        ("kind: local\ngpu: h100\n", "gpus_per_node is missing"),
        ("kind: slurm\ngpus_per_node: 8\ngpu: h100\n", "kind is 'slurm'"),
        ("kind: local\nnodes: 2\ngpus_per_node: 8\ngpu: h100\n", "nodes is 2"),
        ("kind: local\ngpus_per_node: 8\ngpu: h10\n", "did you mean h100"),
        ("- h100\n", "no mapping"),
        ("kind: [\n", "not valid YAML"),
    ],
)
def test_a_cluster_file_that_is_wrong_says_where(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(WishError, match="c.yaml") as caught:
        cluster(str(file))
    assert told in str(caught.value)


def test_a_file_may_know_its_memory_better(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("kind: local\ngpus_per_node: 2\ngpu: h100\ngpu_memory_gib: 93.1\n")
    assert cluster(str(file)).gpu.memory_gib == 93.1
