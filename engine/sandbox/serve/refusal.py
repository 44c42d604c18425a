"""What a client is told when its request is not carried out: a status and one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Refusal(Exception):
    """Ends the handling of a request with this answer."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)
