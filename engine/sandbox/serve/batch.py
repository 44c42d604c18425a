"""/run_batch: many requests in one, each in either shape, answered in their order."""

from __future__ import annotations

from typing import Any

from ..verdict import Limits
from . import fusion, native
from .asked import MOST_CASES, Asked
from .fields import Fields, bad


def read(value: Any, ceiling: Limits) -> list[Asked]:
    """An item with `source` is one of /judge, any other one of /run_code. One that is wrong refuses all."""
    fields = Fields(value)
    items = fields.items("requests")
    fields.close()
    if not 1 <= len(items) <= MOST_CASES:
        bad(f"{len(items)} requests are no batch: send 1 to {MOST_CASES:,}")
    return [_part(Fields(item, f"requests[{number}]"), ceiling) for number, item in enumerate(items)]


def _part(fields: Fields, ceiling: Limits) -> Asked:
    return native.read(fields, ceiling) if "source" in fields else fusion.read(fields, ceiling)
