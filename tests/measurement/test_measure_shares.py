"""What some selections need besides: shares of the foreground, perceptual hashes, the teacher's features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import boxes, quick
from tiny_measuring import SETTINGS, measure
from watched_progress import Watched

from fgdd_fast.errors import DataError, TeacherError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import resize
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile, Measurement
from fgdd_fast.models.network import Images, Runtime, Teacher
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.selection.records import ImageRecord, Tile

SELECTIVE = replace(SETTINGS, shares=True, hashes=True)


@pytest.fixture
def squares(tmp_path: Path) -> DataSet:
    return scan(tiny.write_squares(tmp_path / "data", 6))


def test_shares_come_with_every_foreground_and_hashes_need_no_network(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = measure(squares, tmp_path)
    for record in plain:
        assert isinstance(record, ImageRecord)
        assert record.perceptual_hash is None
        assert all(crop.foreground is None for crop in record.crops)
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    monkeypatch.setattr(Teacher, "losses", _fail)
    assert measure(squares, tmp_path, replace(SETTINGS, shares=True))[0].reused == 18
    measured, records = measure(squares, tmp_path, SELECTIVE)
    assert (measured.measured, measured.reused) == (18, 0)
    monkeypatch.setattr("fgdd_fast.measurement.image_measurer.read_file", _fail)
    assert measure(squares, tmp_path, SELECTIVE)[0].reused == 18
    assert all(isinstance(record, ImageRecord) and record.perceptual_hash is not None for record in records)
    assert measure(squares, tmp_path)[1] == plain


def test_masks_tell_the_shares_of_crops_that_were_added_later(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = replace(SETTINGS, crops=5, seed=SETTINGS.seed + 1)
    (tmp_path / "other").mkdir()
    expected = measure(squares, tmp_path / "other", replace(more, shares=True))[1]
    measure(squares, tmp_path)
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    assert measure(squares, tmp_path, more)[0].measured == 18  # their losses alone
    measured, records = measure(squares, tmp_path, replace(more, shares=True))
    assert measured.reused == 18
    assert records == expected


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("this must not be called")


def test_known_shares() -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[2:6, 4:12] = 255
    halves = [Box(0, 0, 80, 100), Box(80, 0, 120, 100), Box(0, 0, 200, 40), Box(40, 20, 80, 40)]
    assert kept_shares(mask, halves, width=200, height=100) == [0.5, 0.5, 0.5, 1.0]


@st.composite
def images(draw: st.DrawFn) -> tuple[tuple[int, int], list[Box]]:
    width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return (width, height), draw(st.lists(boxes(width, height), min_size=1, max_size=4))


@quick
@given(images(), st.integers(0, 2**32 - 1))
def test_at_the_image_s_resolution_shares_are_counts(
    image: tuple[tuple[int, int], list[Box]], seed: int
) -> None:
    (width, height), members = image
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    total = (mask > 127).sum()
    for box, share in zip(members, kept_shares(mask, members, width, height), strict=True):
        inside = mask[box.y : box.y + box.height, box.x : box.x + box.width]
        assert share == (pytest.approx((inside > 127).sum() / total) if total else 1.0)


@quick
@given(images(), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_at_any_resolution_the_whole_keeps_everything_and_a_part_no_more_than_it(
    image: tuple[tuple[int, int], list[Box]], rows: int, columns: int, seed: int
) -> None:
    (width, height), members = image
    mask = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    inner = [Box(box.x, box.y, (box.width + 1) // 2, (box.height + 1) // 2) for box in members]
    whole, *shares = kept_shares(mask, [Box(0, 0, width, height), *members, *inner], width, height)
    assert whole == 1.0
    for larger, smaller in zip(shares[: len(members)], shares[len(members) :], strict=True):
        assert 0 <= smaller <= larger <= 1


BOX = Box(5, 3, 40, 30)


@contextmanager
def opened(folder: Path, *, features: bool = True) -> Iterator[TileFeatures]:
    bundle = tiny.teacher_bundle(folder, features=features)
    teacher = Teacher(bundle, Runtime("cpu", "fp32", 2), view="resize", tile_size=8, batch=2)
    with Store(folder / "store") as store:
        images = [(image.path, read_image(image.path).sha256) for image in scan(folder / "data").images]
        known = [(path, "", KnownFile(sha256, 1, 1), None, 0, {}, 0, 0) for path, sha256 in images]
        store.add([Measurement(*each) for each in known])
        yield TileFeatures(teacher, SETTINGS, store, store.fingerprint("the way"))
    teacher.close()


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
    watched = Watched()
    with opened(tmp_path) as features:
        features.measure(tiles, paths_of(squares), progress=watched)
        found = features.of(tiles[::-1])[::-1]
        assert features.missing(tiles) == []
    assert watched.steps[-1] == ("Features", len(tiles))
    assert (found.shape, found.dtype) == ((18, 3), np.float32)
    for image, vector in zip(squares.images, found, strict=True):
        part = read_image(image.path).pixels[BOX.y : BOX.y + BOX.height, BOX.x : BOX.x + BOX.width]
        view = resize(np.ascontiguousarray(part), (8, 8), "area")
        shown = cv2.resize(view, (tiny.SIDE, tiny.SIDE), interpolation=cv2.INTER_LINEAR)
        assert vector == pytest.approx(shown.mean(axis=(0, 1)), rel=2**-10, abs=0.5)
        assert np.array_equal(vector, vector.astype(np.float16))


def test_what_was_measured_outlives_an_interruption(squares: DataSet, tmp_path: Path) -> None:
    tiles = tiles_of(squares)

    with opened(tmp_path) as features, pytest.raises(KeyboardInterrupt):
        features.measure(tiles, paths_of(squares), progress=Watched(stop_at=7))
    with opened(tmp_path) as features:
        missing = features.missing(tiles)
        assert 0 < len(missing) <= 18 - 7
        with pytest.raises(DataError, match="were not measured"):
            features.of(tiles)
        features.measure(missing, paths_of(squares))
        assert features.of(tiles).shape == (18, 3)


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
