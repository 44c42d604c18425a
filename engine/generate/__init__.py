"""Text out of a model: requests, generation over ranks, and finding the code in an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.generate.extract import EXTRACT_VERSION, extract, parsed
from engine.generate.request import Generation, Request, Sampling, sample_seed
from engine.generate.server import Endpoint
from engine.generate.server import generate as ask_server
from engine.generate.thinking import AUTO, Thinking

if TYPE_CHECKING:
    from engine.generate.local import generate, rehearse

__all__ = [
    "AUTO",
    "EXTRACT_VERSION",
    "Endpoint",
    "Generation",
    "Request",
    "Sampling",
    "Thinking",
    "ask_server",
    "extract",
    "generate",
    "parsed",
    "rehearse",
    "sample_seed",
]


def __getattr__(name: str) -> Any:
    # These need torch; scoring samples that exist already must not wait for it.
    if name in ("generate", "rehearse"):
        from engine.generate import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
