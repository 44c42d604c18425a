"""Where a run goes: `8xh100`, or a YAML file that says how nodes are reached and what each of them has."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import WishError
from launch.hardware import Cluster, Gpu, gpu

Count = Annotated[int, Field(ge=1, le=10_000)]
Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n\r\x00]+$")]
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
# Temper's own ways to tell ranks who they are: a value from outside would make two ranks one.
RESERVED = re.compile(
    r"^(RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|PET_.*|PYTHONPATH|PATH)$"
)


def _free(name: str) -> str:
    if RESERVED.match(name):
        raise ValueError(f"{name} is set by the launcher itself")
    return name


Variable = Annotated[str, Field(pattern=VARIABLE), AfterValidator(_free)]


class Machines(BaseModel):
    """What every kind of place says: how many machines there are and what each has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    gpus_per_node: Annotated[int, Field(ge=0, le=64)]
    """GPUs in each machine; 0: its ranks compute on CPU (`parallel.device: cpu`)."""
    gpu: str | None = None
    """Name of the GPU, as in `launch.hardware.GPUS`."""
    gpu_memory_gib: Annotated[float, Field(gt=0, le=1024)] | None = None
    """Memory of one GPU where it differs from the table's."""
    host_memory_gib: Annotated[float, Field(gt=0, le=65536)] | None = None
    """Memory of one machine: what is offloaded must fit; empty: not checked."""
    price_per_gpu_hour: Annotated[float, Field(ge=0, le=1e4)] | None = None
    """Price of an hour of one GPU, in any currency; empty: no price is told."""
    environment: tuple[Variable, ...] = ()
    """Names of variables that are handed on to the ranks from where the run is submitted; no others are."""

    @model_validator(mode="after")
    def _has_a_name(self) -> Machines:
        if self.gpus_per_node and self.gpu is None:
            raise ValueError("gpu is missing: name the GPU, or set gpus_per_node to 0")
        return self

    @property
    def size(self) -> int:
        """Machines."""
        return 1

    def host(self, node: int) -> str:
        """What a machine is called where it has not said so itself."""
        return f"node-{node}"

    def hardware(self, name: str) -> Cluster | None:
        """The GPUs there are; None where there are none."""
        if not self.gpus_per_node or self.gpu is None:
            return None
        card = gpu(self.gpu, f"{name}: gpu")
        if self.gpu_memory_gib is not None:
            card = Gpu(card.name, self.gpu_memory_gib, card.tflops, card.link, card.host)
        return Cluster(
            name, self.size, self.gpus_per_node, card, self.host_memory_gib, self.price_per_gpu_hour
        )


class Local(Machines):
    """This machine."""

    kind: Literal["local"] = "local"
    """Ranks are started on this machine."""
    nodes: Annotated[int, Field(ge=1, le=1)] = 1
    """Machines; `local` has one."""


class Hosts(Machines):
    """Machines that are reached one by one, by ssh or another command."""

    kind: Literal["hosts"]
    """Machines that are reached one by one."""
    hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$")], ...], Field(min_length=1)
    ]
    """Addresses, as the machines reach each other; ranks meet at the first."""
    user: Line | None = None
    """Who to be there; empty: as ssh decides."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where sshd listens; empty: as ssh decides."""
    options: tuple[Line, ...] = ()
    """Further words for ssh, such as `-i` and a key file."""
    command: Annotated[tuple[Line, ...], Field(min_length=1)] | None = None
    """Words that run a shell line on a machine, in place of ssh; `{host}` stands for its address."""
    python: Line | None = None
    """Python of the environment Temper is installed in, on every machine; empty: the same path as here."""
    folder: Line | None = None
    """Working folder on every machine, shared by all; empty: the same path as here."""

    @property
    def size(self) -> int:
        """Machines."""
        return len(self.hosts)

    def host(self, node: int) -> str:
        """Its address."""
        return self.hosts[node]


class Slurm(Machines):
    """A cluster under SLURM; the run is submitted from a machine that has `sbatch`."""

    kind: Literal["slurm"]
    """A cluster under SLURM."""
    nodes: Count
    """Machines of one job."""
    partition: Line | None = None
    """As in `sbatch --partition`; empty: the default one."""
    account: Line | None = None
    """As in `sbatch --account`."""
    qos: Line | None = None
    """As in `sbatch --qos`."""
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] | None = None
    """As in `sbatch --time`, e.g. `1-12:00:00`."""
    gres: Line | None = None
    """As in `sbatch --gres`; empty: `gpu:N` with `gpus_per_node`."""
    cpus_per_node: Count | None = None
    """CPUs of each machine that the job takes; empty: the whole machine (`--exclusive`)."""
    requeue: bool = True
    """Queue the job again when its time is over and it has saved."""
    grace_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    """How long before the end of its time the job is asked to save."""
    lines: tuple[Annotated[str, Field(pattern=r"^#SBATCH --[^\n\r\x00]+$")], ...] = ()
    """Further lines of the batch script, each starting with `#SBATCH --`."""
    python: Line | None = None
    """Python of the environment Temper is installed in, on every machine; empty: the same path as here."""

    @property
    def size(self) -> int:
        """Machines."""
        return self.nodes


class Kubernetes(Machines):
    """A Kubernetes cluster; the run is submitted with `kubectl`, as an Indexed Job."""

    kind: Literal["kubernetes"]
    """A Kubernetes cluster."""
    nodes: Count
    """Pods of one run, one a machine."""
    image: Line
    """Image with Temper installed; name it by digest, as it holds the code that runs."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "default"
    """Namespace of all objects."""
    claim: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    """PersistentVolumeClaim, writable from all pods, that holds data and run folders."""
    mount: Annotated[str, Field(pattern=r"^/[^\n\r\x00]+$")] = "/workspace"
    """Where the claim is mounted: the working folder, which relative paths of the run start from."""
    queue: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] | None = None
    """Local queue of Kueue; empty: none."""
    cpus_per_node: Count | None = None
    """CPUs that each pod asks for; empty: none are asked for."""
    shared_memory_gib: Annotated[float, Field(gt=0, le=4096)] = 16.0
    """Size of /dev/shm, which NCCL and data loaders use."""
    python: Line = "python"
    """Python in the image."""

    @property
    def size(self) -> int:
        """Machines."""
        return self.nodes


KINDS: dict[str, type[Machines]] = {"local": Local, "hosts": Hosts, "slurm": Slurm, "kubernetes": Kubernetes}
Place = Annotated[Local | Hosts | Slurm | Kubernetes, Field(discriminator="kind")]


def place(text: str) -> Local | Hosts | Slurm | Kubernetes:
    """A place from `h100`, `8xh100`, or the path of a YAML file.

    Raises:
        WishError: neither a GPU known here nor a readable cluster file.
    """
    if text.endswith((".yaml", ".yml")):
        return _from_file(Path(text))
    found = re.fullmatch(r"(?:(\d{1,2})\s*x\s*)?([a-z0-9-]+)", text.strip().lower())
    if found is None or found[1] in ("0", "00"):
        raise WishError(f"--on {text!r} is no hardware", "write it as 8xh100, or name a cluster's YAML file")
    return Local(gpus_per_node=int(found[1] or 1), gpu=gpu(found[2], "--on").name)


def _from_file(path: Path) -> Local | Hosts | Slurm | Kubernetes:
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
    kind = KINDS.get(str(tree.get("kind")))
    if kind is None:
        said = f"kind is {tree['kind']!r}" if "kind" in tree else "kind is missing"
        raise WishError(f"{path}: {said}", f"one of {', '.join(KINDS)}")
    try:
        found = kind.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, path, list(kind.model_fields)) from None
    found.hardware(str(path))
    assert isinstance(found, Local | Hosts | Slurm | Kubernetes)
    return found


def _explain(error: ValidationError, path: Path, known: list[str]) -> WishError:
    """The first problem of a cluster file as one sentence."""
    # A misspelt key is missing as well: the misspelling is the more telling of the two.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return WishError(
            f"{path}: unknown key {key}", f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        )
    if first["type"] == "missing":
        return WishError(f"{path}: {key} is missing", f"add it; the keys are {', '.join(known)}")
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        what, _, fix = message.partition(": ")
        return WishError(f"{path}: {what}", fix)
    return WishError(f"{path}: {key} is {first['input']!r}", message[0].lower() + message[1:])
