"""The data sets for PyTorch: pixels, targets, epochs, workers, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_distilled import ODD_CLASSES, noise, write_distilled, write_labels

from fgdd_fast.errors import DataError, FgddError, SettingsError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch, render
from fgdd_fast.output.distilled import open_distilled

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from fgdd_fast.data import (  # noqa: E402
    DistilledImages,
    DistilledTiles,
    DistilledViews,
    Normalise,
    ValidationImages,
)

RECIPE = ViewRecipe(size=12, factor=2, batch=3, seed=5)
EPOCHS = 3
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def untouched(image: Any) -> Any:
    """A transform that leaves the uint8 tensor as it is."""
    return image


def pixels_of(image: Any) -> Pixels:
    """A uint8 tensor [3, height, width] as an array [height, width, 3]."""
    assert image.dtype == torch.uint8
    return np.asarray(image.permute(1, 2, 0))


def all_items(items: Any) -> tuple[Any, Any]:
    """Images and targets of a data set, or of a loader of batches, stacked."""
    pairs = [items[index] for index in range(len(items))] if hasattr(items, "__getitem__") else [*items]
    join = torch.stack if hasattr(items, "__getitem__") else torch.cat
    return join([image for image, _ in pairs]), join([torch.as_tensor(target) for _, target in pairs])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_distilled(tmp_path / "out", ODD_CLASSES)
    return tmp_path / "out"


@pytest.fixture
def labelled(out: Path) -> Path:
    write_labels(open_distilled(out), RECIPE, EPOCHS)
    return out


def test_images_are_whole_normalised_and_channels_first(out: Path) -> None:
    images, distilled = DistilledImages(out), open_distilled(out)
    assert (len(images), images.size, images.classes) == (6, 16, ODD_CLASSES)
    assert images.targets == [0, 0, 1, 1, 2, 2]
    for index in range(6):
        image, target = images[index]
        assert image.dtype == torch.float32
        assert image.shape == (3, 16, 16)
        expected = (distilled.read(index) / 255 - MEAN) / STD
        assert np.allclose(image.permute(1, 2, 0), expected, atol=1e-5)
        assert target == images.targets[index]
    with pytest.raises(IndexError):
        images[6]


def test_tiles_are_mosaic_by_mosaic_row_by_row(out: Path) -> None:
    tiles, distilled = DistilledTiles(str(out), transform=untouched), open_distilled(out)
    assert (len(tiles), tiles.size) == (24, 8)
    assert tiles.targets == [0] * 8 + [1] * 8 + [2] * 8
    for index in range(24):
        assert (pixels_of(tiles[index][0]) == distilled.tiles(index // 4)[index % 4]).all()


def test_stored_labels_are_those_of_the_very_image(labelled: Path) -> None:
    _, mosaics = all_items(DistilledImages(labelled, soft_labels=True))
    _, tiles = all_items(DistilledTiles(labelled, soft_labels=True))
    assert mosaics.dtype == tiles.dtype == torch.float32
    assert (mosaics.numpy() == noise(6, 3)).all()
    assert (tiles.numpy() == noise(6, 4, 3).reshape(24, 3)).all()


@given(pixel=st.integers(0, 255), mean=st.floats(0, 1), std=st.floats(0.01, 1))
def test_normalisation_is_by_the_values_given(pixel: int, mean: float, std: float) -> None:
    image = torch.full((3, 1, 2), pixel, dtype=torch.uint8)
    found = Normalise((mean, 0.5, 0.0), (std, 0.25, 1.0))(image)[:, 0, 0].tolist()
    assert found == pytest.approx(
        [(pixel / 255 - mean) / std, (pixel / 255 - 0.5) * 4, pixel / 255], rel=1e-4, abs=1e-4
    )


def test_a_transform_may_change_what_it_is_given(out: Path) -> None:
    for data_set in (
        DistilledImages(out, transform=lambda image: image.zero_() + 7),
        DistilledViews(out, recipe=RECIPE, transform=lambda image: image.zero_() + 7),
    ):
        for _ in range(2):
            images, _ = all_items(data_set)
            assert (images == 7).all()
    before = open_distilled(out).read(0)
    images = DistilledImages(out, transform=untouched)
    images[0][0].zero_()
    assert (pixels_of(images[0][0]) == before).all()


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_views_are_those_that_were_labelled(labelled: Path, epoch: int) -> None:
    views = DistilledViews(labelled, transform=untouched)
    assert (len(views), views.epochs, views.recipe, views.size) == (6, EPOCHS, RECIPE, 12)
    assert views.classes == ODD_CLASSES
    views.set_epoch(epoch)
    images, targets = all_items(views)
    drawn = draw_epoch(RECIPE, 6, 16, epoch)
    expected = render(open_distilled(labelled).read_all(), drawn, RECIPE)
    assert (images.permute(0, 2, 3, 1).numpy() == expected).all()
    assert targets.dtype == torch.float32
    assert (targets.numpy() == noise(6, 3, seed=epoch)).all()


def test_without_labels_the_targets_are_shares_of_the_view(out: Path) -> None:
    views = DistilledViews(out, recipe=RECIPE, transform=untouched)
    assert views.epochs is None
    mixed = 0
    for epoch in (0, 1, 1000):
        views.set_epoch(epoch)
        images, targets = all_items(views)
        drawn = draw_epoch(RECIPE, 6, 16, epoch)
        assert (
            images.permute(0, 2, 3, 1).numpy() == render(open_distilled(out).read_all(), drawn, RECIPE)
        ).all()
        area = drawn.patch[:, 2].astype(int) * drawn.patch[:, 3] / RECIPE.size**2
        own = np.array([0, 0, 1, 1, 2, 2])[drawn.image]
        assert torch.allclose(targets.sum(dim=1), torch.ones(6))
        for place in range(6):
            share = 1 - area[place] * (own[drawn.partner[place]] != own[place])
            assert targets[place, own[place]] == pytest.approx(share, abs=1e-6)
            mixed += 0 < share < 1
    assert mixed


@settings(max_examples=20)
@given(places=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_views_asked_for_together_are_those_asked_for_alone(
    tmp_path_factory: pytest.TempPathFactory, places: list[int]
) -> None:
    out = tmp_path_factory.getbasetemp() / "together"
    if not out.exists():
        write_distilled(out, ODD_CLASSES)
    views = DistilledViews(out, recipe=RECIPE)
    for (image, target), place in zip(views.__getitems__(places), places, strict=True):
        assert torch.equal(image, views[place][0])
        assert torch.equal(target, views[place][1])


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_workers_see_every_epoch_and_change_nothing(labelled: Path, workers: int, method: Any) -> None:
    views = DistilledViews(labelled)
    loader = DataLoader(
        views,
        batch_size=RECIPE.batch,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=workers > 0,
    )
    for epoch in (1, 0, 2):
        views.set_epoch(epoch)
        images, targets = all_items(loader)
        alone = DistilledViews(labelled)
        alone.set_epoch(epoch)
        assert torch.equal(images, all_items(alone)[0])
        assert torch.equal(targets, all_items(alone)[1])
    del loader


def test_data_sets_can_be_sent_to_workers(labelled: Path, tmp_path: Path) -> None:
    tiny.write_squares(tmp_path / "val", 2)
    validation = ValidationImages(tmp_path / "val", tiny.CLASSES, 16)
    for data_set in (DistilledImages(labelled, soft_labels=True), DistilledTiles(labelled), validation):
        found, expected = all_items(pickle.loads(pickle.dumps(data_set))), all_items(data_set)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_validation_images_have_the_student_s_classes(tmp_path: Path) -> None:
    tiny.write_squares(tmp_path, 3)
    (tmp_path / "red" / "03.png").write_text("no image")
    order = ("red", "blue", "green")
    found = ValidationImages(tmp_path, order, 16, transform=untouched)
    assert found.targets.count(0) == found.targets.count(1) == found.targets.count(2) == 3
    assert [skipped.source for skipped in found.skipped] == ["red/03.png"]
    for image, target in (found[index] for index in range(9)):
        middle = pixels_of(image).reshape(-1, 3).mean(axis=0)
        assert order[target] == ("red", "green", "blue")[int(middle.argmax())]
    with pytest.raises(DataError, match="other classes"):
        ValidationImages(tmp_path, ("red", "blue"), 16)


@pytest.mark.parametrize("epoch", [-1, EPOCHS])
def test_an_epoch_that_is_not_stored_is_refused(labelled: Path, epoch: int) -> None:
    views = DistilledViews(labelled)
    with pytest.raises(SettingsError, match="3 are stored"):
        views.set_epoch(epoch)


MAKERS: dict[str, Callable[[Path], object]] = {
    "images": DistilledImages,
    "tiles": DistilledTiles,
    "views": DistilledViews,
    "drawn views": lambda out: DistilledViews(out, recipe=RECIPE),
    "soft images": lambda out: DistilledImages(out, soft_labels=True),
    "soft tiles": lambda out: DistilledTiles(out, soft_labels=True),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_image_is_found_at_once(labelled: Path, kind: str) -> None:
    path = open_distilled(labelled).path(4)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError):
        MAKERS[kind](labelled)


@pytest.mark.parametrize("kind", ["views", "soft images", "soft tiles"])
def test_missing_labels_are_told_with_the_command_that_makes_them(out: Path, kind: str) -> None:
    with pytest.raises(DataError, match="fgdd-fast label"):
        MAKERS[kind](out)


def test_labels_without_views_serve_images_only(out: Path) -> None:
    write_labels(open_distilled(out))
    assert len(DistilledImages(out, soft_labels=True)) == 6
    with pytest.raises(DataError, match=r"not of training views.* fgdd-fast label OUT .*--epochs"):
        DistilledViews(out)


@pytest.mark.parametrize("file", ["images.safetensors", "epoch-00001.safetensors"])
def test_damaged_labels_are_refused(labelled: Path, file: str) -> None:
    path = labelled / "labels" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    views = DistilledViews(labelled)  # nothing of it is read yet
    views.set_epoch(1)
    with pytest.raises(DataError, match="corrupted"):
        DistilledImages(labelled, soft_labels=True) if "images" in file else views[0]


def test_a_recipe_that_does_not_fit_the_mosaics_is_refused_at_once(out: Path) -> None:
    with pytest.raises(FgddError, match="tiles"):
        DistilledViews(out, recipe=ViewRecipe(size=12, factor=3, batch=3, seed=0))
