"""Read the tensors of a PyTorch checkpoint into NumPy, without PyTorch and without executing anything.

A checkpoint holds pickles, and a pickle can call any function that it names. This unpickler knows the few
names that a dictionary of tensors needs and refuses every other. Both of PyTorch's containers are read: the
zip archive (the default since PyTorch 1.6) and the older row of pickles followed by the raw storages.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from fgdd_export.graphs.graph import Array
from fgdd_fast.errors import BundleError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_FLOATS = {"Double": "<f8", "Float": "<f4", "Half": "<f2"}
_INTEGERS = {"Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
_NO_CHECKPOINT = (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, zlib.error, EOFError, MemoryError)
_NO_TENSORS = (AttributeError, LookupError, NotImplementedError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True)
class _StorageType:
    """Stands for a class such as torch.FloatStorage."""

    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Storage:
    """A flat run of numbers, by its key within the checkpoint."""

    key: str
    dtype: np.dtype[Any]
    length: int

    def check_size(self, size: int) -> None:
        """Make sure that the file holds as many bytes as the index says."""
        if size != self.length * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} has {size} bytes, but {self.length} numbers")


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, values: Array) -> Array:
        """The tensor as an array of its own, checked to lie within its storage."""
        last = self.offset + sum(
            (length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True)
        )
        if self.offset < 0 or min((*self.shape, *self.strides), default=0) < 0:
            raise ValueError("a tensor has a negative offset, length or stride")
        if math.prod(self.shape) and last >= len(values):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)
        return view.copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{
        ("torch", f"{name}Storage"): _StorageType(np.dtype(code))
        for name, code in {**_FLOATS, **_INTEGERS}.items()
    },
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that can name nothing but tensors and ordered dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which a plain dictionary of tensors does not need"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, length, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view not in ([], [None]):
            raise pickle.UnpicklingError("it refers to something other than a plain storage")
        return _Storage(str(key), storage_type.dtype, int(length))


def read_checkpoint(file: BinaryIO, what: str) -> dict[str, Array]:
    """Read a dictionary of tensors by name, each an array of its own, from a file opened in binary mode.

    Raises BundleError, which calls the file `what`, where it is no checkpoint, is damaged, or asks for
    anything but plain tensors.
    """
    try:
        read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
        file.seek(0)
        return read(file)
    except _NO_CHECKPOINT + _NO_TENSORS as error:
        raise BundleError(f"{what} cannot be read as a PyTorch checkpoint: {error}") from error


def _read_zip(file: BinaryIO) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if index is None:
            raise ValueError("it is a zip archive without data.pkl")
        root = index.removesuffix("data.pkl")
        state = _dictionary_of_tensors(_TensorUnpickler(io.BytesIO(archive.read(index))).load())

        def read(storage: _Storage) -> bytes:
            member = archive.getinfo(f"{root}data/{storage.key}")
            storage.check_size(member.file_size)
            return archive.read(member)

        return _tensors(state, read)


def _read_legacy(file: BinaryIO) -> dict[str, Array]:
    magic, protocol, system = (_TensorUnpickler(file).load() for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not system["little_endian"]:
        raise ValueError("it is neither a zip archive nor PyTorch's older format")
    state = _dictionary_of_tensors(_TensorUnpickler(file).load())
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    content = {}
    for key in _TensorUnpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        content[key] = file.read(length * storages[key].dtype.itemsize)
        storages[key].check_size(len(content[key]))
    return _tensors(state, lambda storage: content[storage.key])


def _dictionary_of_tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("it is no plain dictionary of tensors")
    return state


def _tensors(state: Mapping[str, _Tensor], read: Callable[[_Storage], bytes]) -> dict[str, Array]:
    return {
        name: tensor.array(np.frombuffer(read(tensor.storage), tensor.storage.dtype))
        for name, tensor in state.items()
    }
