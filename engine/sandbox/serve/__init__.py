"""Judging over HTTP: `serve` opens the door that reward functions and other tools post their programs to."""

from .options import Options
from .server import serve

__all__ = ["Options", "serve"]
