"""Where a run would go: GPUs by name, and clusters from a short name such as `8xh100` or a YAML file."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator. `memory_gib` is what the driver reports, a little below the name's figure for some.

    `tflops` is the vendor's dense peak of 16-bit matrix products (no sparsity); `link` and `host` are the bandwidth
    to the GPUs beside it and to host memory, in GB/s one way, from the vendors' data sheets.
    """

    name: str
    memory_gib: float
    tflops: float
    link: float
    host: float = 25.0


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200", 178.0, 2250, 900, 50),
        Gpu("h200", 139.8, 989, 450, 50),
        Gpu("h100", 79.1, 989, 450, 50),
        Gpu("h100-pcie", 79.1, 756, 50, 50),
        Gpu("a100", 79.1, 312, 300),
        Gpu("a100-40gb", 39.4, 312, 300),
        Gpu("l40s", 44.4, 362, 25),
        Gpu("l40", 44.4, 181, 25),
        Gpu("a6000", 47.4, 155, 25),
        Gpu("6000-ada", 47.4, 364, 25),
        Gpu("a40", 44.4, 150, 25),
        Gpu("l4", 22.0, 121, 12, 12),
        Gpu("a10", 22.0, 125, 25),
        Gpu("a10g", 22.0, 70, 25),
        Gpu("rtx5090", 31.3, 209, 25),
        Gpu("rtx4090", 23.5, 165, 25),
        Gpu("rtx3090", 23.6, 71, 25),
        Gpu("v100", 31.7, 125, 150, 12),
        Gpu("v100-16gb", 15.8, 125, 150, 12),
        Gpu("t4", 14.6, 65, 12, 12),
    )
}
SYNONYMS = {
    "h100-80gb": "h100",
    "a100-80gb": "a100",
    "h100-sxm": "h100",
    "h200-141gb": "h200",
    "4090": "rtx4090",
}
SYNONYMS |= {"3090": "rtx3090", "5090": "rtx5090", "v100-32gb": "v100"}
# Volta and Turing have no bf16 matrix units.
NO_BF16 = ("v100", "v100-16gb", "t4")


class ClusterFile(BaseModel):
    """A cluster as its YAML file says it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["local"]
    """How ranks are started: `local` on this machine."""
    nodes: Annotated[int, Field(ge=1, le=1)] = 1
    """Machines; `local` has one."""
    gpus_per_node: Annotated[int, Field(ge=1, le=64)]
    """GPUs in each machine."""
    gpu: str
    """Name of the GPU, as in `launch.hardware.GPUS`."""
    gpu_memory_gib: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Memory of one GPU where it differs from the table's."""
    host_memory_gib: Annotated[float, Field(gt=0, le=65536)] | None = None
    """Memory of one machine: what is offloaded must fit; empty: not checked."""
    price_per_gpu_hour: Annotated[float, Field(ge=0, le=1e4)] | None = None
    """Price of an hour of one GPU, in any currency; empty: no price is told."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a run would go. `name` is as the user said it."""

    name: str
    kind: str
    nodes: int
    gpus_per_node: int
    gpu: Gpu
    host_memory_gib: float | None = None
    price_per_gpu_hour: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node


def cluster(text: str) -> Cluster:
    """A cluster from `h100`, `8xh100`, or the path of a YAML file.

    Raises:
        WishError: neither a GPU known here nor a readable cluster file.
    """
    if text.endswith((".yaml", ".yml")):
        return _from_file(Path(text))
    found = re.fullmatch(r"(?:(\d{1,3})\s*x\s*)?([a-z0-9-]+)", text.strip().lower())
    if found is None or found[1] == "0":
        raise WishError(f"--on {text!r} is no hardware", "write it as 8xh100, or name a cluster's YAML file")
    return Cluster(text, "local", 1, int(found[1] or 1), gpu(found[2], "--on"))


def gpu(name: str, said: str) -> Gpu:
    """A GPU by name; `said` is where the name was written.

    Raises:
        WishError: it is not in the table.
    """
    known = SYNONYMS.get(name.lower(), name.lower())
    if known not in GPUS:
        near = difflib.get_close_matches(known, GPUS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise WishError(
            f"{said} names the GPU {name!r}, which is not known", f"{hint}known: {', '.join(GPUS)}"
        )
    return GPUS[known]


def _from_file(path: Path) -> Cluster:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WishError(
            f"there is no cluster file {path}", "configs/cluster has examples; or write 8xh100"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WishError(f"{path} cannot be read: {error}", "name a readable UTF-8 YAML file") from None
    except yaml.YAMLError as error:
        raise WishError(f"{path} is not valid YAML: {str(error).splitlines()[0]}", "mend that line") from None
    if not isinstance(tree, dict):
        raise WishError(f"{path} holds no mapping", "start with `kind: local`")
    try:
        file = ClusterFile.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, path) from None
    card = gpu(file.gpu, f"{path}: gpu")
    if file.gpu_memory_gib is not None:
        card = Gpu(card.name, file.gpu_memory_gib, card.tflops, card.link, card.host)
    return Cluster(
        str(path),
        file.kind,
        file.nodes,
        file.gpus_per_node,
        card,
        file.host_memory_gib,
        file.price_per_gpu_hour,
    )


def _explain(error: ValidationError, path: Path) -> WishError:
    """The first problem of a cluster file as one sentence."""
    # A misspelt key is missing as well: the misspelling is the more telling of the two.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    known = list(ClusterFile.model_fields)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return WishError(
            f"{path}: unknown key {key}", f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        )
    if first["type"] == "missing":
        return WishError(f"{path}: {key} is missing", f"add it; the keys are {', '.join(known)}")
    return WishError(f"{path}: {key} is {first['input']!r}", first["msg"][0].lower() + first["msg"][1:])
