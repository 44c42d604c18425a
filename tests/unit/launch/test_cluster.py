"""Places by short name and from YAML files: what is read, and what is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import WishError
from launch.cluster import place
from launch.hardware import GPUS, SYNONYMS, Cluster

ROOT = Path(__file__).parents[3]


def cluster(text: str) -> Cluster:
    found = place(text).hardware(text)
    assert found is not None
    return found


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
    found = place(str(file))
    assert found.size >= 1 and found.kind in file.read_text()
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: local\ngpus_per_nod: 8\ngpu: h100\n", "did you mean gpus_per_node"),
        ("kind: local\ngpu: h100\n", "gpus_per_node is missing"),
        ("kind: slrm\ngpus_per_node: 8\ngpu: h100\n", "kind is 'slrm'"),
        ("gpus_per_node: 8\n", "kind is missing"),
        ("kind: slurm\ngpus_per_node: 8\ngpu: h100\n", "nodes is missing"),
        ("kind: slurm\nnodes: 2\ngpus_per_node: 8\n", "gpu is missing"),
        ("kind: slurm\nnodes: 2\ngpus_per_node: 0\nlines: [rm]\n", "lines.0 is 'rm'"),
        ("kind: hosts\nhosts: []\ngpus_per_node: 0\n", "hosts is []"),
        ("kind: hosts\nhosts: ['-oProxyCommand=x']\ngpus_per_node: 0\n", "hosts.0 is '-oProxyCommand=x'"),
        ("kind: local\ngpus_per_node: 0\nenvironment: [RANK]\n", "set by the launcher itself"),
        ("kind: local\ngpus_per_node: 0\nenvironment: ['A B']\n", "environment.0 is 'A B'"),
        ("kind: kubernetes\nnodes: 2\ngpus_per_node: 0\nimage: x\n", "claim is missing"),
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


def test_nodes_without_gpus_are_a_place_without_hardware(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("kind: hosts\nhosts: [a, b, c]\ngpus_per_node: 0\n")
    found = place(str(file))
    assert (found.size, found.hardware("c")) == (3, None)
