"""Views on disk: the same views, in few bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_fast.labels.tensors import pack, pack_views, unpack, unpack_views
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch


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
