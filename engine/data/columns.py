"""Arrays that grow at their end, in memory or in a file that is mapped afterwards; and texts as two of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

# The header of an empty file must have the length of the full one's, which is written over it at the end.
_HEADER_BYTES = 128
_BUFFER_BYTES = 1 << 18


class Column:
    """One flat array in the making. With a `file` (.npy) it grows on disk, and no more than a buffer is in memory; the
    file is open only while it is written to, since a run may have very many."""

    def __init__(self, dtype: Any, file: Path | None) -> None:
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._memory = bytearray()
        self._file = file
        if file:
            file.write_bytes(self._header())

    def add(self, values: Any) -> None:
        """Add values at the end."""
        part = np.ascontiguousarray(values, dtype=self._dtype)
        self._count += len(part)
        self._memory += part.data
        if self._file and len(self._memory) >= _BUFFER_BYTES:
            self._flush(self._file)

    def push(self, value: int) -> None:
        """Add one value at the end."""
        self._count += 1
        self._memory += self._dtype.type(value).tobytes()
        if self._file and len(self._memory) >= _BUFFER_BYTES:
            self._flush(self._file)

    def close(self) -> np.ndarray:
        """The array; of one in a file nothing, as it is to be mapped."""
        if not self._file:
            return np.frombuffer(self._memory, dtype=self._dtype)
        self._flush(self._file)
        with self._file.open("r+b") as stream:
            stream.write(self._header())
        return np.empty(0, dtype=self._dtype)

    def _flush(self, file: Path) -> None:
        with file.open("ab") as stream:
            stream.write(self._memory)
        self._memory.clear()

    def _header(self) -> bytes:
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count,)}
        stream = io.BytesIO()
        npy.write_array_header_1_0(stream, header)
        if stream.tell() != _HEADER_BYTES:
            raise RuntimeError(f"numpy wrote a header of {stream.tell()} bytes, not {_HEADER_BYTES}")
        return stream.getvalue()


class Texts:
    """Texts in the making: their UTF-8 one after another, and where each ends."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._name = name
        self._bytes = Column(np.uint8, folder and folder / f"{name}.npy")
        self._ends = Column(np.int64, folder and folder / f"{name}_ends.npy")
        self._size = 0

    def add(self, text: str) -> None:
        """Add a text at the end."""
        encoded = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        self._size += len(encoded)
        self._bytes.add(encoded)
        self._ends.push(self._size)

    def close(self) -> dict[str, np.ndarray]:
        """Both arrays by name."""
        return {self._name: self._bytes.close(), f"{self._name}_ends": self._ends.close()}


class Strings(Sequence[str]):
    """Texts as `Texts` left them: each is decoded when it is asked for."""

    def __init__(self, encoded: np.ndarray, ends: np.ndarray) -> None:
        self._bytes = encoded
        self._ends = ends

    @classmethod
    def among(cls, arrays: Mapping[str, np.ndarray], name: str) -> Strings:
        """The texts called `name`."""
        return cls(arrays[name], arrays[f"{name}_ends"])

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return tuple(self[each] for each in range(*at.indices(len(self))))
        place = range(len(self))[at]
        start = int(self._ends[place - 1]) if place else 0
        return self._bytes[start : int(self._ends[place])].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def mapped(file: Path) -> np.ndarray:
    """The array of a .npy file, read from disk page by page as it is looked at; read-only, shared by processes.

    Raises:
        ValueError, OSError: it is none.
    """
    found = np.load(file, mmap_mode="r", allow_pickle=False)
    # Slices of a memmap are slow to make; the pages are the same.
    return np.asarray(found)
