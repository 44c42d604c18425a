"""The report: run folders and evaluations as one page, as Markdown and as JSON."""

from __future__ import annotations

from engine.evaluate.report.page import summarise, write
from engine.evaluate.report.stages import gather

__all__ = ["gather", "summarise", "write"]
