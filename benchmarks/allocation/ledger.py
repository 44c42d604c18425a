"""What tensors hold: every storage that is alive, counted at each operator, as an allocator would count it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Bytes of all tensor storages alive in this process, now and at the highest.

    It sees what goes through torch's dispatcher, which is every tensor a training step makes, whoever makes it; and,
    unlike MemTracker, it needs no module or optimizer to be announced, so that it works inside DeepSpeed's engine.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: dict[int, tuple[Any, int]] = {}

    def __enter__(self) -> Ledger:
        """Count from now on, sizes that are changed in place too: that is how FSDP2 drops gathered weights."""
        self._resize = torch.UntypedStorage.resize_

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            result = self._resize(storage, size)
            self._count_storage(storage)
            return result

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop counting."""
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operator, then count what it returned."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value)
        return result

    def take_stock(self) -> None:
        """Count every tensor there is, and storages whose size was changed behind the dispatcher's back."""
        for value in gc.get_objects():
            if isinstance(value, torch.Tensor) and value.device.type != "meta":
                self._count(value)

    def restart(self) -> None:
        """Let the highest be what is there now."""
        gc.collect()
        self.take_stock()
        self.peak = self.now

    def _count(self, tensor: torch.Tensor) -> None:
        if type(tensor).__name__ == "DTensor":
            tensor = tensor._local_tensor  # type: ignore[attr-defined]
        if tensor.device.type == "meta":
            return
        self._count_storage(tensor.untyped_storage())

    def _count_storage(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), id(storage)
        known = self._known.get(key)
        if known is None:
            self._known[key] = (weakref.ref(storage, partial(self._forget, key)), size)
            self.now += size
        elif known[1] != size:
            self._known[key] = (known[0], size)
            self.now += size - known[1]
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, _: Any) -> None:
        self.now -= self._known.pop(key)[1]
