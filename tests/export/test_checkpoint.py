from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_export.checkpoints.checkpoint import LEGACY_MAGIC, LEGACY_PROTOCOL, read_checkpoint
from fgdd_export.graphs.graph import Array
from fgdd_fast.errors import BundleError

STORAGES = {
    "float32": "FloatStorage",
    "int64": "LongStorage",
    "float16": "HalfStorage",
    "bool": "BoolStorage",
}


class Storage:
    """Stands for a PyTorch storage while a test's checkpoint is pickled."""

    def __init__(self, key: str, values: Array) -> None:
        self.key, self.values = key, values


class Tensor:
    """A view of a storage that pickles as PyTorch's tensors do."""

    def __init__(
        self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class CheckpointPickler(pickle.Pickler):
    """Writes storages by reference, as PyTorch does."""

    legacy = False

    def persistent_id(self, value: object) -> Any:
        if not isinstance(value, Storage):
            return None
        kind = getattr(sys.modules["torch"], STORAGES[value.values.dtype.name])
        reference = ("storage", kind, value.key, "cpu", value.values.size)
        return (*reference, None) if self.legacy else reference


@pytest.fixture(autouse=True)
def _stand_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))

    def rebuild(*arguments: object) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(value: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    pickler = CheckpointPickler(buffer, protocol=2)
    pickler.legacy = legacy
    pickler.dump(value)
    return buffer.getvalue()


def zip_checkpoint(state: object, storages: list[Storage]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(state))
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.values.tobytes())
    return buffer.getvalue()


def legacy_checkpoint(state: object, storages: list[Storage]) -> bytes:
    system = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": {}}
    parts = [pickled(part, legacy=True) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, system, state)]
    parts.append(pickled([storage.key for storage in storages]))
    parts += [struct.pack("<q", storage.values.size) + storage.values.tobytes() for storage in storages]
    return b"".join(parts)


def read(data: bytes) -> dict[str, Array]:
    return read_checkpoint(io.BytesIO(data), "The checkpoint")


CONTAINERS = pytest.mark.parametrize("container", [zip_checkpoint, legacy_checkpoint])


def example() -> tuple[OrderedDict[str, Tensor], list[Storage]]:
    """A whole matrix, its transposed lower part, a scalar, an empty tensor and three more types."""
    numbers = Storage("0", np.arange(12, dtype=np.float32))
    others = [Storage(str(i + 1), np.array([1, 0, 3]).astype(t)) for i, t in enumerate(list(STORAGES)[1:])]
    state = OrderedDict(
        matrix=Tensor(numbers, 0, (3, 4), (4, 1)),
        turned=Tensor(numbers, 4, (4, 2), (1, 4)),
        scalar=Tensor(numbers, 7, (), ()),
        empty=Tensor(numbers, 0, (0, 4), (4, 1)),
        **{storage.values.dtype.name: Tensor(storage, 0, (3,), (1,)) for storage in others},
    )
    return state, [numbers, *others]


@CONTAINERS
def test_tensors_are_read(container: Any) -> None:
    tensors = read(container(*example()))
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(tensors["matrix"], matrix)
    np.testing.assert_array_equal(tensors["turned"], matrix[1:].T)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 7
    assert tensors["empty"].shape == (0, 4)
    for dtype in list(STORAGES)[1:]:
        np.testing.assert_array_equal(tensors[dtype], np.array([1, 0, 3]).astype(dtype))
        assert tensors[dtype].dtype == dtype
    tensors["matrix"][:] = -1  # an array of its own
    assert tensors["scalar"] == 7


class Exploit:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("echo executed",)


@CONTAINERS
@pytest.mark.parametrize("payload", [Exploit(), OrderedDict(weight=Exploit()), eval, np.zeros(3)])
def test_nothing_is_executed(container: Any, payload: object, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match="it names"):
        read(container(payload, []))
    assert "executed" not in capfd.readouterr().out


@CONTAINERS
@pytest.mark.parametrize("state", [[1, 2], {"epoch": 3}, "text", {"nested": {}}])
def test_other_contents_are_refused(container: Any, state: object) -> None:
    with pytest.raises(BundleError, match="no plain dictionary of tensors"):
        read(container(state, []))


@CONTAINERS
@pytest.mark.parametrize(
    "view", [(0, (13,), (1,)), (10, (3,), (1,)), (-1, (2,), (1,)), (2, (2,), (-1,)), (0, (2, 2), (1,))]
)
def test_views_beyond_their_storage_are_refused(container: Any, view: Any) -> None:
    storage = Storage("0", np.zeros(12, np.float32))
    with pytest.raises(BundleError):
        read(container({"weight": Tensor(storage, *view)}, [storage]))


@CONTAINERS
def test_truncated_checkpoints_are_refused(container: Any) -> None:
    data = container(*example())
    for length in range(0, len(data) - 1, 41):
        with pytest.raises(BundleError):
            read(data[:length])


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


@CONTAINERS
@given(data=st.data())
def test_a_changed_byte_gives_tensors_or_an_error(container: Any, data: st.DataObject) -> None:
    good = bytearray(container(*example()))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = read(bytes(good))
    except BundleError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
