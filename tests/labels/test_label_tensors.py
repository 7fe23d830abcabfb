"""Arrays in a file: what libraries of the format read, and nothing but what was written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgdd_fast.labels.tensors import pack, smallest_unsigned, unpack

ARRAYS = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.float16, np.float32]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, min_side=0, max_side=4))
    ),
    max_size=5,
)


@given(tensors=ARRAYS)
def test_what_is_packed_comes_back(tensors: dict[str, np.ndarray]) -> None:
    content = pack(tensors)
    found = unpack(content)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert content == pack(dict(reversed(list(tensors.items()))))


@given(tensors=ARRAYS)
def test_the_formats_own_library_reads_it(tensors: dict[str, np.ndarray]) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load(pack(tensors))
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == array.tobytes() for name, array in tensors.items())


def test_arrays_in_any_memory_order_and_byte_order() -> None:
    array = np.arange(12, dtype=">u2").reshape(3, 4).T
    assert np.array_equal(unpack(pack({"a": array}))["a"], array)


@given(content=st.binary(max_size=60))
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack(content)


@given(cut=st.integers(1, 90))
def test_a_truncated_file_is_refused(cut: int) -> None:
    content = pack({"a": np.arange(6, dtype=np.uint16)})
    with pytest.raises(ValueError, match=r".+"):
        unpack(content[:-cut])


@pytest.mark.parametrize(("greatest", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65536, "u4")])
def test_the_narrowest_integers(greatest: int, dtype: str) -> None:
    array = smallest_unsigned(np.array([0, greatest]), greatest)
    assert array.dtype == dtype
    assert array.tolist() == [0, greatest]
