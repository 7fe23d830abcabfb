"""The teacher's features of tiles: right, measured once, and kept through interruptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny

from fgdd_fast.errors import DataError, TeacherError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import resize
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.network import Images, Runtime, Teacher
from fgdd_fast.selection.records import Tile

SETTINGS = MeasureSettings(crops=3, seed=0, resize="area", batch=1, threads=2)
BOX = Box(5, 3, 40, 30)


@contextmanager
def opened(folder: Path, *, features: bool = True) -> Iterator[TileFeatures]:
    bundle = tiny.teacher_bundle(folder, features=features)
    teacher = Teacher(bundle, Runtime("cpu", "fp32", 2), view="resize", tile_size=8, batch=2)
    with Store(folder / "store") as store:
        yield TileFeatures(teacher, SETTINGS, store, store.fingerprint("the way"))
    teacher.close()


@pytest.fixture
def squares(tmp_path: Path) -> DataSet:
    return scan(tiny.write_squares(tmp_path / "data", 3))


def tiles_of(squares: DataSet) -> list[Tile]:
    return [
        Tile(image.source, read_image(image.path).sha256, BOX, "crop", 0.5, 0.5, 1.0)
        for image in squares.images
    ]


def paths_of(squares: DataSet) -> dict[str, Path]:
    return {image.source: image.path for image in squares.images}


def test_they_are_those_of_the_view_in_half_precision(squares: DataSet, tmp_path: Path) -> None:
    """The tiny teacher's features are the mean red, green and blue of what it is shown."""
    tiles = tiles_of(squares)
    done: list[None] = []
    with opened(tmp_path) as features:
        features.measure(tiles, paths_of(squares), lambda: done.append(None))
        found = features.of(tiles[::-1])[::-1]
        assert features.missing(tiles) == []
    assert len(done) == len(tiles)
    assert (found.shape, found.dtype) == ((9, 3), np.float32)
    for image, vector in zip(squares.images, found, strict=True):
        part = read_image(image.path).pixels[BOX.y : BOX.y + BOX.height, BOX.x : BOX.x + BOX.width]
        view = resize(np.ascontiguousarray(part), (8, 8), "area")
        shown = cv2.resize(view, (tiny.SIDE, tiny.SIDE), interpolation=cv2.INTER_LINEAR)
        assert vector == pytest.approx(shown.mean(axis=(0, 1)), rel=2**-10, abs=0.5)
        assert np.array_equal(vector, vector.astype(np.float16))


def test_what_was_measured_outlives_an_interruption(squares: DataSet, tmp_path: Path) -> None:
    tiles = tiles_of(squares)

    def interrupt() -> None:
        if len(features.missing(tiles)) <= 5:
            raise KeyboardInterrupt

    with opened(tmp_path) as features, pytest.raises(KeyboardInterrupt):
        features.measure(tiles, paths_of(squares), interrupt)
    with opened(tmp_path) as features:
        missing = features.missing(tiles)
        assert 0 < len(missing) <= 5
        with pytest.raises(DataError, match="were not measured"):
            features.of(tiles)
        features.measure(missing, paths_of(squares))
        assert features.of(tiles).shape == (9, 3)


def test_an_image_that_changed_or_went_is_refused(squares: DataSet, tmp_path: Path) -> None:
    tiles = tiles_of(squares)
    assert cv2.imwrite(str(squares.images[1].path), tiny.square("green", 0.5))
    with opened(tmp_path) as features:
        with pytest.raises(DataError, match="changed since it was measured"):
            features.measure(tiles, paths_of(squares))
        squares.images[1].path.unlink()
        with pytest.raises(DataError, match="can no longer be read"):
            features.measure(tiles, paths_of(squares))


@pytest.mark.parametrize(("value", "kept"), [(1e6, 65504.0), (-np.inf, None), (np.nan, None)])
def test_features_beyond_half_precision(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, kept: float | None
) -> None:
    def same(_: Teacher, images: Images) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.full((len(images), 3), value, np.float32)

    monkeypatch.setattr(Teacher, "features", same)
    tiles: Sequence[Tile] = tiles_of(squares)[:1]
    with opened(tmp_path) as features:
        if kept is None:
            with pytest.raises(TeacherError, match="not finite"):
                features.measure(tiles, paths_of(squares))
        else:
            features.measure(tiles, paths_of(squares))
            assert np.array_equal(features.of(tiles), [[kept] * 3])
