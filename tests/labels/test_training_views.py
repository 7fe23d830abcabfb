"""Training views: drawn as RDED's recipe draws them, and rendered as drawn."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision_reference import assert_alike, reference_crop

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.resize import resize
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, default_batch, draw_epoch, render

FACTORS = st.integers(1, 4)
RECIPES = st.builds(
    ViewRecipe,
    size=st.integers(1, 40),
    factor=FACTORS,
    batch=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
    cutmix=st.booleans(),
)

# Seed 7, epoch 5: other draws would make other students of the same seed.
GOLDEN = {
    "image": [0, 3, 2, 1],
    "tiles": [[2, 3, 0, 1], [1, 0, 3, 2], [0, 1, 2, 3], [3, 2, 1, 0]],
    "box": [[21, 5, 82, 105], [14, 2, 94, 110], [24, 18, 83, 92], [3, 12, 107, 87]],
    "flip": [False, False, False, True],
    "partner": [0, 1, 2, 3],
    "patch": [[0, 24, 53, 40], [0, 24, 53, 40], [0, 24, 53, 40], [39, 5, 16, 16]],
}


def mosaics(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def equal(one: EpochViews, other: EpochViews) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__annotations__)


def plain(count: int, factor: int, size: int) -> EpochViews:
    """Views that show each image whole, as it is."""
    return EpochViews(
        image=np.arange(count, dtype=np.int32),
        tiles=np.tile(np.arange(factor**2, dtype=np.uint8), (count, 1)),
        box=np.tile(np.array([0, 0, size, size], np.int16), (count, 1)),
        flip=np.zeros(count, np.bool_),
        partner=np.arange(count, dtype=np.int32),
        patch=np.zeros((count, 4), np.int16),
    )


@given(recipe=RECIPES, images=st.integers(0, 40), tile=st.integers(1, 30), epoch=st.integers(0, 10**6))
def test_everything_drawn_is_possible(recipe: ViewRecipe, images: int, tile: int, epoch: int) -> None:
    side = recipe.factor * tile
    views = draw_epoch(recipe, images, side, epoch)
    assert sorted(views.image) == list(range(images)), "each image gives one view"
    assert all(sorted(order) == list(range(recipe.factor**2)) for order in views.tiles.tolist())
    low, extent = views.box[:, :2], views.box[:, 2:]
    assert ((low >= 0) & (extent > 0) & (low + extent <= side)).all()
    for start in range(0, images, recipe.batch):
        batch = slice(start, min(start + recipe.batch, images))
        assert sorted(views.partner[batch]) == list(range(batch.start, batch.stop))
        assert len({tuple(patch) for patch in views.patch[batch].tolist()}) == 1
    low, extent = views.patch[:, :2], views.patch[:, 2:]
    assert ((low >= 0) & (extent >= 0) & (low + extent <= recipe.size)).all()
    if not recipe.cutmix:
        assert not views.patch.any()
        assert (views.partner == np.arange(images)).all()


@given(recipe=RECIPES, epoch=st.integers(0, 1000))
def test_an_epoch_depends_on_the_seed_and_its_number_alone(recipe: ViewRecipe, epoch: int) -> None:
    side = 8 * recipe.factor
    views = draw_epoch(recipe, 20, side, epoch)
    draw_epoch(recipe, 20, side, epoch + 1)
    assert equal(views, draw_epoch(recipe, 20, side, epoch))
    assert not equal(views, draw_epoch(recipe, 20, side, epoch + 1))
    assert not equal(views, draw_epoch(replace(recipe, seed=recipe.seed ^ 1), 20, side, epoch))


def test_the_draws_are_the_same_with_every_version() -> None:
    views = draw_epoch(ViewRecipe(size=64, factor=2, batch=3, seed=7), 4, 112, 5)
    assert {name: getattr(views, name).tolist() for name in GOLDEN} == GOLDEN


def crop_by_torchvision(side: int, factor: int, dice: random.Random) -> tuple[int, int, int, int]:
    """A crop of a square as RDED draws it: at least a tile's share, of the default ratios."""
    return reference_crop(side, side, (1 / factor, 1.0), (3 / 4, 4 / 3), dice)


@pytest.mark.parametrize("factor", [2, 3])
def test_crops_are_distributed_as_torchvision_draws_them(factor: int) -> None:
    count, side = 6000, 24 * factor
    views = draw_epoch(ViewRecipe(size=8, factor=factor, batch=100, seed=1), count, side, 0)
    dice = random.Random(2)
    reference = np.array([crop_by_torchvision(side, factor, dice) for _ in range(count)])
    drawn = views.box.astype(np.int64)
    for statistic in (
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 2],
        lambda box: box[:, 3],
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
    ):
        assert_alike(statistic(drawn), statistic(reference))


@given(side=st.integers(1, 500), seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_with_one_tile_the_crop_is_the_whole_image(side: int, seed: int) -> None:
    views = draw_epoch(ViewRecipe(size=8, factor=1, batch=10, seed=seed), 50, side, 0)
    assert (views.box == [0, 0, side, side]).all()
    dice = random.Random(seed)
    assert {crop_by_torchvision(side, 1, dice) for _ in range(50)} == {(0, 0, side, side)}


def reference_patch(side: int, dice: np.random.RandomState) -> tuple[int, int, int, int]:
    """CutMix's rand_bbox in a square, as x, y, width, height."""
    cut = int(side * np.sqrt(1.0 - dice.beta(1.0, 1.0)))
    x, y = dice.randint(side), dice.randint(side)
    x1, y1 = np.clip(x - cut // 2, 0, side), np.clip(y - cut // 2, 0, side)
    x2, y2 = np.clip(x + cut // 2, 0, side), np.clip(y + cut // 2, 0, side)
    return x1, y1, x2 - x1, y2 - y1


@pytest.mark.parametrize("side", [32, 33])
def test_patches_are_distributed_as_cutmix_draws_them(side: int) -> None:
    count = 6000
    views = draw_epoch(ViewRecipe(size=side, factor=1, batch=1, seed=3), count, 16, 0)
    dice = np.random.RandomState(4)
    reference = np.array([reference_patch(side, dice) for _ in range(count)])
    drawn = views.patch.astype(np.int64)
    for column in range(4):
        assert_alike(drawn[:, column], reference[:, column])
    assert_alike(*(boxes[:, 2] * boxes[:, 3] for boxes in (drawn, reference)))


def test_rows_and_columns_of_tiles_are_shuffled_and_nothing_finer() -> None:
    views = draw_epoch(ViewRecipe(size=8, factor=2, batch=10, seed=0), 4000, 16, 0)
    orders = Counter(tuple(order) for order in views.tiles.tolist())
    assert set(orders) == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    assert all(abs(count - 1000) < 140 for count in orders.values())


def test_half_of_the_views_are_flipped() -> None:
    views = draw_epoch(ViewRecipe(size=8, factor=1, batch=10, seed=0), 4000, 16, 0)
    assert abs(int(views.flip.sum()) - 2000) < 160


def test_a_view_that_changes_nothing_is_the_image() -> None:
    images = mosaics(3, 12)
    shown = render(images, plain(3, 2, 12), ViewRecipe(size=12, factor=2, batch=3, seed=0))
    assert np.array_equal(shown, images)
    shown[:] = 0
    assert images.any(), "what is rendered is the caller's own"


def test_tiles_crop_flip_and_resizing_come_in_rdeds_order() -> None:
    images = mosaics(1, 8)
    recipe = ViewRecipe(size=6, factor=2, batch=1, seed=0)
    views = replace(
        plain(1, 2, 8),
        tiles=np.array([[3, 2, 1, 0]], np.uint8),
        box=np.array([[1, 2, 5, 4]], np.int16),
        flip=np.array([True]),
    )
    tiles = images[0].reshape(2, 4, 2, 4, 3).swapaxes(1, 2).reshape(4, 4, 4, 3)[[3, 2, 1, 0]]
    mosaic = tiles.reshape(2, 2, 4, 4, 3).swapaxes(1, 2).reshape(8, 8, 3)
    expected = resize(np.ascontiguousarray(mosaic[2:6, 1:6]), (6, 6), "area")[:, ::-1]
    assert np.array_equal(render(images, views, recipe)[0], expected)


def test_a_patch_is_the_partner_before_mixing() -> None:
    images = mosaics(3, 10)
    views = replace(
        plain(3, 1, 10),
        partner=np.array([1, 2, 0], np.int32),
        patch=np.tile(np.array([2, 3, 4, 5], np.int16), (3, 1)),
    )
    shown = render(images, views, ViewRecipe(size=10, factor=1, batch=3, seed=0))
    expected = images.copy()
    expected[:, 3:8, 2:6] = images[[1, 2, 0], 3:8, 2:6]
    assert np.array_equal(shown, expected)


@given(recipe=RECIPES, tile=st.integers(1, 12), data=st.data())
@settings(max_examples=50)
def test_places_can_be_rendered_in_any_company(recipe: ViewRecipe, tile: int, data: st.DataObject) -> None:
    count, side = 9, tile * recipe.factor
    images = mosaics(count, side)
    views = draw_epoch(recipe, count, side, 3)
    whole = render(images, views, recipe)
    assert whole.shape == (count, recipe.size, recipe.size, 3)
    assert whole.dtype == np.uint8
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=5))
    assert np.array_equal(render(images, views, recipe, places), whole[places])
    assert np.array_equal(render(images, views, recipe, slice(2, 7)), whole[2:7])


@pytest.mark.parametrize(
    ("classes", "ipc", "batch"),
    [
        *((10, 1, 10), (10, 5, 28), (10, 10, 50), (10, 30, 75), (10, 50, 100), (10, 500, 100)),
        *((2, 1, 2), (100, 1, 20), (100, 10, 100), (1000, 50, 200)),
    ],
)
def test_the_batch_is_rdeds(classes: int, ipc: int, batch: int) -> None:
    assert default_batch(classes, ipc) == batch


@pytest.mark.parametrize("values", [{"size": 0}, {"factor": 17}, {"batch": 0}, {"seed": -1}, {"size": 40000}])
def test_a_recipe_out_of_range_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        ViewRecipe(**{"size": 8, "factor": 1, "batch": 1, "seed": 0, **values})


@pytest.mark.parametrize("side", [0, 7, 32768])
def test_images_that_cannot_be_cut_are_refused(side: int) -> None:
    with pytest.raises(SettingsError, match="cut into 2"):
        draw_epoch(ViewRecipe(size=8, factor=2, batch=1, seed=0), 1, side, 0)
