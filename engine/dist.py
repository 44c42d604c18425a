"""Who am I: this rank, its peers, its device, and the few words ranks exchange outside the model."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from engine.config import Run, deepspeed_settings
from engine.errors import WishError

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True)
class World:
    """The ranks of this job as one of them sees it.

    `control` is a gloo group over host memory: counts and flags cross it without waiting for the device.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    accelerator: Accelerator
    control: Any

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that prints and writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over all ranks (float64, host memory)."""
        return self._reduce(values, torch.distributed.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """Element-wise maximum over all ranks."""
        return self._reduce(values, torch.distributed.ReduceOp.MAX)

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64)
        torch.distributed.all_reduce(tensor, op=operation, group=self.control)
        return tensor.tolist()

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank (plain data)."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank (plain data)."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value, group=self.control)
        return found

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            torch.distributed.barrier(group=self.control)

    def neighbours(self, size: int, *, timeout_seconds: int) -> Any:
        """The group of `size` ranks in a row that this rank is in (a collective: every rank makes every group)."""
        patience = timedelta(seconds=timeout_seconds)
        group, _ = torch.distributed.new_subgroups(size, timeout=patience)
        return group

    def close(self) -> None:
        """Leave the job. Without it gloo's threads may abort a process that has already finished its work."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def start(run: Run, *, sharded: bool = True, computes: bool = True) -> World:
    """Join the job that the launcher made (RANK, WORLD_SIZE ... in the environment) or be a job of one.

    Args:
        run: the Run.
        sharded: whether the Run's strategy is wanted; evaluation only needs ranks that can talk.
        computes: whether a model runs here; a process that only asks a server takes no device.

    Raises:
        WishError: CUDA asked for and not there, too few devices, or a strategy the launcher did not start.
    """
    _hush()
    cpu = not computes or _on_cpu(run)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    zero = sharded and run.parallel.strategy.startswith("zero")
    _set_threads(run, cpu, size)
    if not cpu and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count():
        raise WishError(
            f"{os.environ['LOCAL_WORLD_SIZE']} ranks on this machine and {torch.cuda.device_count()} CUDA devices",
            f"set parallel.processes to {torch.cuda.device_count()}, or parallel.device to cpu",
        )
    if size == 1 and sharded and run.parallel.strategy != "none":
        _be_alone()
    accelerator = _accelerator(run, cpu=cpu, zero=zero, size=size)
    if accelerator.num_processes != size:
        raise RuntimeError(f"{accelerator.num_processes} ranks joined of the {size} that were started")
    # A new group does not take the job's timeout over: its own would be half an hour, whatever the Run says.
    patience = timedelta(seconds=run.parallel.timeout_seconds)
    control = torch.distributed.new_group(backend="gloo", timeout=patience) if size > 1 else None
    return World(
        rank=accelerator.process_index,
        size=size,
        local_rank=accelerator.local_process_index,
        device=torch.device("cpu") if cpu else accelerator.device,
        accelerator=accelerator,
        control=control,
    )


def _accelerator(run: Run, *, cpu: bool, zero: bool, size: int) -> Accelerator:
    # Each of these is read by Accelerate or DeepSpeed at import or construction: they are set here, whatever the
    # launch line said, so that `accelerate launch`, torchrun and a plain start all end in the same strategy.
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true" if zero else "false"
    os.environ["ACCELERATE_USE_FSDP"] = "false"
    if cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    elif run.train.deterministic:
        # cuBLAS reads it once, when its first handle is made; without it its sums have no fixed order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # FlashAttention's backward adds in any order unless transformers asks it not to.
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    os.environ.pop("ACCELERATE_USE_CPU", None)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)

    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

    group = InitProcessGroupKwargs(
        backend="gloo" if cpu else "nccl", timeout=timedelta(seconds=run.parallel.timeout_seconds)
    )
    if zero:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            from torch.utils.cpp_extension import get_default_build_root

            clear_dead_builds(Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()))
        settings = deepspeed_settings(run, size, cpu=cpu)
        plugin = DeepSpeedPlugin(hf_ds_config=settings, zero3_init_flag=run.parallel.strategy == "zero3")
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # cpu=True would make Accelerate drop DeepSpeed without a word. DeepSpeed prints while it builds its CPU ops.
        with contextlib.redirect_stdout(io.StringIO()):
            return Accelerator(
                deepspeed_plugin=plugin,
                gradient_accumulation_steps=settings["gradient_accumulation_steps"],
                kwargs_handlers=[group],
            )
    return Accelerator(cpu=cpu, kwargs_handlers=[group] if size > 1 else [])


def clear_dead_builds(root: Path, *, patience: float = 60.0) -> None:
    """Remove locks of extension builds that were killed: torch waits for such a file silently and for ever.

    A lock that a process of this machine holds open is a build under way and stays. One that nobody here holds may be
    another machine's, on a shared home folder, so it must be `patience` seconds old.
    """
    for lock in root.glob("**/lock"):
        told = False
        while not _is_open(lock) and (age := _age(lock)) is not None:
            if age > patience:
                lock.unlink(missing_ok=True)
                print(f"removed {lock}: the build that left it there was killed", file=sys.stderr, flush=True)
            elif not told:
                told = True
                print(
                    f"waiting {patience - age:.0f} s for the build of {lock.parent}",
                    file=sys.stderr,
                    flush=True,
                )
            time.sleep(min(1.0, patience / 10))


def _age(file: Path) -> float | None:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None


def _is_open(file: Path) -> bool:
    """Whether a process of this machine that we may look into has the file open."""
    wanted = str(file.resolve())
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == wanted:
                return True
    return False


def _hush() -> None:
    """Libraries' progress bars and notes to their own developers would break the one live line."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _on_cpu(run: Run) -> bool:
    if run.parallel.device == "cuda" and not torch.cuda.is_available():
        raise WishError(
            "parallel.device is cuda and torch finds no CUDA device",
            "set parallel.device to cpu, or check the driver (nvidia-smi) and that torch is a CUDA build",
        )
    cpu = run.parallel.device == "cpu" or not torch.cuda.is_available()
    if cpu and run.parallel.precision == "fp16":
        raise WishError("parallel.precision is fp16 and the ranks compute on CPU", "use bf16 or fp32 on CPU")
    return cpu


def _set_threads(run: Run, cpu: bool, size: int) -> None:
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if run.parallel.threads:
        torch.set_num_threads(run.parallel.threads)
    elif cpu:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))


def _be_alone() -> None:
    """A job of one rank that nobody launched still needs the rendezvous variables its strategy reads."""
    if "MASTER_ADDR" in os.environ and "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
