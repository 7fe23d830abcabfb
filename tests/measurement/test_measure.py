"""Measuring: right values, once only, whatever the threads, batches, order and interruptions."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_measuring import SETTINGS, measure, measurer
from watched_progress import Watched

from fgdd_fast.errors import EngineError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import encode_mask
from fgdd_fast.models.foreground import Foreground, ForegroundModel, Inputs, Pixels, ScoredBox
from fgdd_fast.models.given.masks import GivenMasks
from fgdd_fast.models.network import Teacher, fingerprint_text
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.selection.records import ImageRecord


@pytest.fixture
def squares(tmp_path: Path) -> DataSet:
    return scan(tiny.write_squares(tmp_path / "data", 6))


def test_the_occupancy_and_the_losses_are_those_of_the_image(squares: DataSet, tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    measured, records = measure(squares, tmp_path)
    assert (measured.measured, measured.reused, measured.skipped) == (18, 0, ())
    assert cv2.getNumThreads() == threads
    for image, record in zip(squares.images, records, strict=True):
        assert isinstance(record, ImageRecord)
        decoded = read_image(image.path)
        coloured = np.ptp(decoded.pixels.astype(int), axis=2) > 60
        assert record.occupancy == pytest.approx(coloured.mean(), abs=0.08)  # seen at 16 x 16
        assert (record.source, record.sha256) == (image.source, decoded.sha256)
        # The teacher's logits are a tenth of each channel's mean; a tile fills a quarter of the input.
        tile = cv2.resize(decoded.pixels, (8, 8), interpolation=cv2.INTER_AREA)
        logits = tile.mean(axis=(0, 1))[::-1] * 0.1 / 4
        label = tiny.CLASSES.index(image.class_name)
        assert record.full.loss == pytest.approx(np.logaddexp.reduce(logits) - logits[label], abs=1e-4)
        assert len(record.crops) == 3


@pytest.mark.parametrize(
    "settings",
    [replace(SETTINGS, threads=1), replace(SETTINGS, threads=5), replace(SETTINGS, batch=4)],
    ids=["1 thread", "5 threads", "batch 4"],
)
def test_threads_and_batches_change_nothing(
    squares: DataSet, tmp_path: Path, settings: MeasureSettings
) -> None:
    (tmp_path / "other").mkdir()
    found = measure(squares, tmp_path)[1]
    assert measure(squares, tmp_path / "other", settings)[1] == found
    again, records = measure(squares, tmp_path, replace(settings, batch=SETTINGS.batch))
    assert (again.measured, records) == (0, found)


def test_masks_are_encoded_where_they_are_found(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = set()

    def watched(mask: Pixels) -> bytes:
        encoding.add(threading.current_thread().name)
        return encode_mask(mask)

    monkeypatch.setattr("fgdd_fast.measurement.image_measurer.encode_mask", watched)
    with measurer(tmp_path) as measuring:
        measuring.measure(squares.images)
        assert all(mask is not None for mask in measuring.masks(squares.images))
    assert encoding
    assert all(name.startswith("infer") for name in encoding)


def test_a_moved_data_set_is_hashed_but_not_decoded(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(squares, tmp_path)
    shutil.copytree(squares.root, tmp_path / "moved")
    monkeypatch.setattr("fgdd_fast.measurement.image_measurer.decoding", _fail)
    measured, records = measure(scan(tmp_path / "moved"), tmp_path)
    assert (measured.measured, measured.reused) == (0, 18)
    assert all(isinstance(record, ImageRecord) for record in records)


def test_more_crops_measure_only_the_new_ones(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, records = measure(squares, tmp_path)
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    measured, more = measure(squares, tmp_path, replace(SETTINGS, crops=5))
    assert measured.measured == 18
    for before, after in zip(records, more, strict=True):
        assert isinstance(before, ImageRecord)
        assert isinstance(after, ImageRecord)
        assert after.crops[:3] == before.crops


def test_a_changed_file_is_measured_anew(squares: DataSet, tmp_path: Path) -> None:
    _, before = measure(squares, tmp_path)
    image = squares.images[0]
    assert cv2.imwrite(str(image.path), tiny.square("green", 0.5))
    measured, after = measure(squares, tmp_path)
    assert (measured.measured, measured.reused) == (1, 17)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_another_seed_keeps_occupancies_and_draws_other_crops(squares: DataSet, tmp_path: Path) -> None:
    _, before = measure(squares, tmp_path)
    _, after = measure(squares, tmp_path, replace(SETTINGS, seed=1))
    for one, other in zip(before, after, strict=True):
        assert isinstance(one, ImageRecord)
        assert isinstance(other, ImageRecord)
        assert one.occupancy == other.occupancy
        assert one.full == other.full
        assert one.crops != other.crops


def test_a_file_that_vanishes_is_skipped(squares: DataSet, tmp_path: Path) -> None:
    squares.images[3].path.unlink()
    measured, _ = measure(squares, tmp_path)
    assert [item.source for item in measured.skipped] == [squares.images[3].source]


def test_a_failing_network_stops_the_run_and_keeps_what_was_measured(
    squares: DataSet, tmp_path: Path
) -> None:
    with measurer(tmp_path) as measuring:
        losses, calls = Teacher.losses, 0

        def failing(self: Teacher, *arguments: Sequence[object]) -> object:
            nonlocal calls
            calls += 1
            if calls > 9:
                raise EngineError("out of memory")
            return losses(self, *arguments)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Teacher, "losses", failing)
            with pytest.raises(EngineError, match="out of memory"):
                measuring.measure(squares.images)
        measured = measuring.measure(squares.images)
    assert measured.reused >= 5
    assert measured.measured + measured.reused == 18


def test_ctrl_c_stops_at_once_and_keeps_what_was_measured(squares: DataSet, tmp_path: Path) -> None:
    with measurer(tmp_path) as measuring:
        with pytest.raises(KeyboardInterrupt):
            measuring.measure(squares.images, progress=Watched(stop_at=7))
        assert measuring.measure(squares.images).reused >= 7


class ByClass:
    """A foreground model that is asked for a class: occupancy and box follow the class's place alone."""

    name = "by class"
    sha256 = "0" * 64
    description = "no runtime"
    streams = 2

    def __init__(self) -> None:
        self.found: list[bool] = []

    def fingerprint(self, class_name: str) -> dict[str, str]:
        return {"model": self.sha256, "prompt": class_name}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        return {"place": np.array(tiny.CLASSES.index(image.class_name))}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        places = [int(inputs["place"]) for inputs in prepared]
        self.found += [masks] * len(places)
        return [
            Foreground(
                (1 + place) / 4,
                (ScoredBox(0, 0, 0.5, 1, (1 + place) / 4),) * place,
                np.full((2, 4), 60 * (1 + place), np.uint8) if masks else None,
            )
            for place in places
        ]

    def close(self) -> None:
        pass


def fingerprint(store: Store, model: ForegroundModel, class_name: str) -> int:
    return store.fingerprint(fingerprint_text(model.fingerprint(class_name)))


def test_the_same_bytes_in_two_classes_have_two_foregrounds(tmp_path: Path) -> None:
    root = tiny.write_squares(tmp_path / "data", 1)
    for name in ("blue", "green"):
        shutil.copyfile(root / "red" / "00.png", root / name / "00.png")
    model = ByClass()
    measured, records = measure(scan(root), tmp_path, model=model)
    assert (measured.measured, len(model.found)) == (3, 3)
    occupancies = {
        record.class_name: record.occupancy for record in records if isinstance(record, ImageRecord)
    }
    assert occupancies == {"blue": 0.25, "green": 0.5, "red": 0.75}
    sha256 = read_image(root / "red" / "00.png").sha256
    with Store(tmp_path / "store") as store:
        for place, name in enumerate(tiny.CLASSES):
            boxes = store.boxes(sha256, fingerprint(store, model, name))
            assert boxes == (ScoredBox(0, 0, 0.5, 1, (1 + place) / 4),) * place
    assert measure(scan(root), tmp_path, model=model)[0].reused == 3


def test_a_warm_pool_takes_few_queries_and_gives_the_same_records(tmp_path: Path) -> None:
    data = scan(tiny.write_squares(tmp_path / "data", 40))
    settings = replace(SETTINGS, shares=True, hashes=True, batch=8)
    _, records = measure(data, tmp_path, settings)
    with measurer(tmp_path, settings) as measuring:
        queries: list[str] = []
        measuring._store._database.set_trace_callback(queries.append)
        assert measuring.measure(data.images).reused == 120
        assert list(measuring.records(data.images)) == records
    assert len(queries) <= len(data.images) / 4


def write_mask(folder: Path, image: SourceImage, value: int) -> None:
    path = folder / f"{image.source}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(read_image(image.path).pixels.shape[:2], value, np.uint8))


def write_masks(data: DataSet, folder: Path) -> Path:
    for image in data.images:
        write_mask(folder, image, 0)
    return folder


def test_only_images_whose_masks_came_or_changed_are_measured_anew(squares: DataSet, tmp_path: Path) -> None:
    masks = write_masks(squares, tmp_path / "masks")
    late, changed = squares.images[2], squares.images[5]
    (masks / f"{late.source}.png").rename(tmp_path / "late.png")
    measured, before = measure(squares, tmp_path, model=GivenMasks(masks, streams=1))
    assert measured.skipped == (Skipped(late.source, "has no mask of its name"),)
    (tmp_path / "late.png").rename(masks / f"{late.source}.png")
    write_mask(masks, changed, 255)
    measured, after = measure(squares, tmp_path, model=GivenMasks(masks, streams=1))
    assert (measured.measured, measured.reused, measured.skipped) == (2, 16, ())
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [(new.source, getattr(new, "occupancy", None)) for new in differing] == [
        (late.source, 0.0),
        (changed.source, 1.0),
    ]


class AsBefore:
    """Given masks as an older version saw them: any that changes changes the key of all."""

    streams = 1

    def __init__(self, masks: GivenMasks) -> None:
        self.name, self.sha256, self.description = masks.name, masks.sha256, masks.description
        self.fingerprint, self.prepare, self.find = masks.fingerprint, masks.prepare, masks.find
        self.close = masks.close


def test_masks_measured_when_all_had_one_key_are_known(squares: DataSet, tmp_path: Path) -> None:
    masks = GivenMasks(write_masks(squares, tmp_path / "masks"), streams=1)
    _, records = measure(squares, tmp_path, model=AsBefore(masks))
    measured, again = measure(squares, tmp_path, model=masks)
    assert (measured.measured, measured.reused) == (0, 18)
    assert again == records


def test_a_mask_that_changes_while_it_is_measured_is_not_kept_under_its_old_key(
    squares: DataSet, tmp_path: Path
) -> None:
    masks = write_masks(squares, tmp_path / "masks")
    model = GivenMasks(masks, streams=1)
    image = squares.images[4]
    write_mask(masks, image, 255)
    measured, _ = measure(squares, tmp_path, model=model)
    assert measured.skipped == (Skipped(image.source, "its mask cannot be used: it changed just now"),)


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("this must not be called")
