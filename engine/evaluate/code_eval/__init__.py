"""`code_eval` for the library evaluate, with our sandbox behind it; `code_eval.py` is what `evaluate.load` reads."""

from __future__ import annotations

from pathlib import Path

CODE_EVAL = str(Path(__file__).parent)
"""What `evaluate.load` is given: it needs no hub."""

__all__ = ["CODE_EVAL"]
