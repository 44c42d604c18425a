"""Where numbers go beside metrics.jsonl: TensorBoard and Weights & Biases, imported only when asked for."""

from __future__ import annotations

import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.errors import WishError

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID = "wandb-id"


class TensorBoard:
    """Event files under RUN/tensorboard.

    Args:
        folder: the run folder.

    Raises:
        WishError: the package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise WishError(
                "track.tensorboard is on, but the tensorboard package is not installed",
                "pip install tensorboard, or set track.tensorboard: false",
            ) from error
        self._make: Any = SummaryWriter
        self._folder = folder / TENSORBOARD_FOLDER
        self._purge_step: int | None = None
        self._writer: Any = None

    def forget_after(self, step: int) -> None:
        """Hide what an earlier attempt wrote of later steps; TensorBoard reads the mark from a new event file."""
        self.close()
        self._purge_step = step + 1

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=self._purge_step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Hand over what is still held back."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """One W&B run for one run folder, continued by every attempt.

    Args:
        folder: the run folder; its name is the run's name, and the run's id is kept in it.
        project: W&B project.
        config: shown with the run.

    Raises:
        WishError: the package or the key is missing.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise WishError(
                f"track.wandb is {project!r}, but the wandb package is not installed",
                "pip install wandb, or remove track.wandb",
            ) from error
        offline = os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun")
        if not offline and not _signed_in():
            # Without a key wandb would ask on the terminal, and a rank has nobody to answer.
            raise WishError(
                f"track.wandb is {project!r}, but WANDB_API_KEY is not set and nobody is logged in",
                "export WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline to upload later with `wandb sync`",
            )
        self._run: Any = wandb.init(
            project=project,
            name=folder.resolve().name,
            id=_run_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )
        # The step is a value of its own here: a resumed attempt may log steps again that W&B has seen.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        """Hand over what is still held back."""
        self._run.finish()


def _signed_in() -> bool:
    """Whether there is a key: in the environment, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(folder: Path) -> str:
    path = folder / WANDB_ID
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
