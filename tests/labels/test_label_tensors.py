"""Arrays in a file: what libraries of the format read, nothing but what was written, and in few bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgdd_fast.labels.tensors import pack, pack_views, smallest_unsigned, unpack, unpack_views
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch

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


@given(content=st.binary(max_size=60), cut=st.integers(1, 90))
def test_anything_else_is_refused(content: bytes, cut: int) -> None:
    whole = pack({"a": np.arange(6, dtype=np.uint16)})
    for other in (content, whole[:-cut]):
        with pytest.raises(ValueError, match=r".+"):
            unpack(other)


@pytest.mark.parametrize(("greatest", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65536, "u4")])
def test_the_narrowest_integers(greatest: int, dtype: str) -> None:
    array = smallest_unsigned(np.array([0, greatest]), greatest)
    assert array.dtype == dtype
    assert array.tolist() == [0, greatest]


@given(
    size=st.integers(1, 600),
    factor=st.integers(1, 3),
    tile=st.integers(1, 200),
    batch=st.integers(1, 12),
    images=st.integers(1, 30),
    cutmix=st.booleans(),
)
def test_views_come_back(size: int, factor: int, tile: int, batch: int, images: int, cutmix: bool) -> None:
    recipe = ViewRecipe(size=size, factor=factor, batch=batch, seed=1, cutmix=cutmix)
    views = draw_epoch(recipe, images, tile * factor, 2)
    arrays = unpack(pack(pack_views(views, recipe, tile * factor)))
    found = unpack_views(arrays, recipe, images)
    for name in views.__annotations__:
        assert np.array_equal(getattr(found, name), getattr(views, name)), name
        assert getattr(found, name).dtype == getattr(views, name).dtype, name


def test_bytes_of_a_view() -> None:
    recipe = ViewRecipe(size=224, factor=2, batch=50, seed=0)
    arrays = pack_views(draw_epoch(recipe, 100, 224, 0), recipe, 224)
    # image, four tiles, four sides of the crop, flip, partner, and a fiftieth of a patch
    assert sum(array.nbytes for array in arrays.values()) == 100 * (1 + 4 + 4 + 1 + 1) + 2 * 4


def test_views_of_another_number_of_images_are_refused() -> None:
    recipe = ViewRecipe(size=8, factor=2, batch=5, seed=0)
    arrays = pack_views(draw_epoch(recipe, 10, 16, 0), recipe, 16)
    with pytest.raises(ValueError, match="shape"):
        unpack_views(arrays, recipe, 11)
    with pytest.raises(KeyError):
        unpack_views({}, recipe, 10)
