"""Files of PyTorch tensors are read without PyTorch, as it writes them now and as it did long ago."""

from __future__ import annotations

import io
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_export.checkpoints.checkpoint import read_checkpoint
from fgdd_export.graphs.graph import Array
from fgdd_fast.errors import BundleError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


class View:
    """A view of a tensor's storage that pickles as a tensor does, whether PyTorch would make it or not."""

    def __init__(self, tensor: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        storage = torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype)
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


def saved(state: object, *, archive: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, Array]:
    return read_checkpoint(io.BytesIO(data), "The checkpoint")


OTHER_TYPES = ("int64", "float16", "bool")
CONTAINERS = pytest.mark.parametrize(
    "container", [partial(saved, archive=True), partial(saved, archive=False)], ids=["zip", "legacy"]
)


def example() -> OrderedDict[str, Any]:
    """A whole matrix, its transposed lower part, a scalar, an empty tensor and three more types."""
    matrix = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return OrderedDict(
        matrix=matrix,
        turned=matrix[1:].T,
        scalar=matrix[1, 3],
        empty=matrix[:0],
        **{name: torch.tensor([1, 0, 3]).to(getattr(torch, name)) for name in OTHER_TYPES},
    )


@CONTAINERS
def test_tensors_are_read(container: Any) -> None:
    tensors = read(container(example()))
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(tensors["matrix"], matrix)
    np.testing.assert_array_equal(tensors["turned"], matrix[1:].T)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 7
    assert tensors["empty"].shape == (0, 4)
    for dtype in OTHER_TYPES:
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
        read(container(payload))
    assert "executed" not in capfd.readouterr().out


@CONTAINERS
@pytest.mark.parametrize("state", [[1, 2], {"epoch": 3}, "text", {"nested": {}}])
def test_other_contents_are_refused(container: Any, state: object) -> None:
    with pytest.raises(BundleError, match="no plain dictionary of tensors"):
        read(container(state))


@CONTAINERS
@pytest.mark.parametrize(
    "view", [(0, (13,), (1,)), (10, (3,), (1,)), (-1, (2,), (1,)), (2, (2,), (-1,)), (0, (2, 2), (1,))]
)
def test_views_beyond_their_storage_are_refused(container: Any, view: Any) -> None:
    data = container({"weight": View(torch.zeros(12), *view)})
    with pytest.raises(BundleError):
        read(data)


@CONTAINERS
def test_truncated_checkpoints_are_refused(container: Any) -> None:
    data = container(example())
    for length in range(0, len(data) - 1, 41):
        with pytest.raises(BundleError):
            read(data[:length])


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


WHOLE = {
    archive: saved(example(), archive=archive) for archive in (True, False)
}  # lengths differ by the call


@pytest.mark.parametrize("archive", WHOLE)
@given(data=st.data())
def test_a_changed_byte_gives_tensors_or_an_error(archive: bool, data: st.DataObject) -> None:
    good = bytearray(WHOLE[archive])
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = read(bytes(good))
    except BundleError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
