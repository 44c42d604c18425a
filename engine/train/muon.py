"""Muon for the matrices of the layers and AdamW for everything else, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon (Jordan 2024; arXiv 2502.16982) where a group says so, torch's AdamW elsewhere.

    Muon's step has the size that AdamW's usually has (0.2 x the root of the longer side, arXiv 2502.16982, section
    2.2), so that one learning rate and one weight decay serve both.

    Args:
        groups: of parameters; `muon` says whose step is orthogonalised. Those must have two dimensions, whole.
        adam: settings of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], adam: dict[str, Any]) -> None:
        super().__init__(groups, {})
        muon, rest = self._split()
        self._parts: list[tuple[bool, torch.optim.Optimizer]] = []
        if muon:
            self._parts.append((True, torch.optim.Muon(muon, lr=adam["lr"], adjust_lr_fn="match_rms_adamw")))
        if rest:
            self._parts.append((False, torch.optim.AdamW(rest, fused=True, **adam)))

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every group by its own rule."""
        muon, rest = self._split()
        for orthogonal, part in self._parts:
            # Loading a state puts new groups in place of those the parts were made with.
            part.param_groups = muon if orthogonal else rest
            part.state = self.state
            part.step()

    def _split(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        muon = [group for group in self.param_groups if group["muon"]]
        return muon, [group for group in self.param_groups if not group["muon"]]
