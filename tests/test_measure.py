"""Measuring: right values, once only, whatever the threads, batches, order and interruptions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny

from fgdd_fast.dataset import DataSet, Skipped, scan
from fgdd_fast.decode import read_image
from fgdd_fast.errors import EngineError
from fgdd_fast.measure import Measured, Measurer, MeasureSettings
from fgdd_fast.networks import VIEWS_PER_INFERENCE, Runtime, SaliencyModel, Teacher
from fgdd_fast.records import ImageRecord
from fgdd_fast.store import Store

SETTINGS = MeasureSettings(crops=3, seed=0, resize="area", batch=1, threads=2)


@contextmanager
def measurer(folder: Path, settings: MeasureSettings = SETTINGS, device: str = "cpu") -> Iterator[Measurer]:
    """A measurer with the tiny networks, whose store lies in `folder`."""
    runtime = Runtime(device, "fp32", settings.threads)  # type: ignore[arg-type]
    foreground = SaliencyModel(tiny.foreground_bundle(folder), runtime, batch=settings.batch)
    batch = settings.batch * VIEWS_PER_INFERENCE
    teacher = Teacher(tiny.teacher_bundle(folder), runtime, view="pad", tile_size=8, batch=batch)
    with Store(folder / "store") as store:
        yield Measurer(foreground, teacher, settings, store)
    foreground.close()
    teacher.close()


def measure(
    data: DataSet, folder: Path, settings: MeasureSettings = SETTINGS, device: str = "cpu"
) -> tuple[Measured, list[ImageRecord | Skipped]]:
    with measurer(folder, settings, device) as measuring:
        done: list[None] = []
        measured = measuring.measure(data.images, lambda: done.append(None))
        assert len(done) == len(data.images)
        return measured, list(measuring.records(data.images))


@pytest.fixture
def squares(tmp_path: Path) -> DataSet:
    return scan(tiny.write_squares(tmp_path / "data", 6))


def test_the_occupancy_and_the_losses_are_those_of_the_image(squares: DataSet, tmp_path: Path) -> None:
    measured, records = measure(squares, tmp_path)
    assert (measured.measured, measured.reused, measured.skipped) == (18, 0, ())
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
    assert measure(squares, tmp_path)[1] == measure(squares, tmp_path / "other", settings)[1]


def test_openvino_measures_the_same(squares: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    (tmp_path / "other").mkdir()
    expected, found = (
        measure(squares, folder, device=device)[1]
        for folder, device in ((tmp_path, "cpu"), (tmp_path / "other", "openvino"))
    )
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, ImageRecord)
        assert isinstance(other, ImageRecord)
        assert one.occupancy == pytest.approx(other.occupancy, abs=1e-6)
        assert [view.box for view in one.crops] == [view.box for view in other.crops]
        assert [view.loss for view in one.crops] == pytest.approx(
            [view.loss for view in other.crops], abs=1e-4
        )


def test_a_second_run_reads_nothing(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, records = measure(squares, tmp_path)
    monkeypatch.setattr("fgdd_fast.measure.read_file", _fail)
    measured, again = measure(squares, tmp_path)
    assert (measured.measured, measured.reused) == (0, 18)
    assert again == records


def test_a_moved_data_set_is_hashed_but_not_decoded(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(squares, tmp_path)
    shutil.copytree(squares.root, tmp_path / "moved")
    monkeypatch.setattr("fgdd_fast.measure.decode_image", _fail)
    measured, records = measure(scan(tmp_path / "moved"), tmp_path)
    assert (measured.measured, measured.reused) == (0, 18)
    assert all(isinstance(record, ImageRecord) for record in records)


def test_more_crops_measure_only_the_new_ones(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, records = measure(squares, tmp_path)
    monkeypatch.setattr(SaliencyModel, "occupancies", _fail)
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


def test_bad_files_are_skipped_with_their_reason_and_the_others_measured(tmp_path: Path) -> None:
    root = tiny.write_squares(tmp_path / "data", 3)
    (root / "red" / "empty.jpg").write_bytes(b"")
    (root / "red" / "text.jpg").write_text("no image at all, but long enough to look like one")
    (root / "red" / os.fsdecode(b"\xff '\"\xf0\x9f\x90\xb1.png")).write_bytes(
        (root / "red" / "00.png").read_bytes()
    )
    data = scan(root)
    measured, records = measure(data, tmp_path)
    assert measured.measured == 10
    assert [item.source for item in measured.skipped] == ["red/empty.jpg", "red/text.jpg"]
    assert all(item.reason and str(tmp_path) not in item.reason for item in measured.skipped)
    usable = [record for record in records if isinstance(record, ImageRecord)]
    assert len(usable) == 10


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
    done = 0

    def interrupt() -> None:
        nonlocal done
        done += 1
        if done == 7:
            raise KeyboardInterrupt

    with measurer(tmp_path) as measuring:
        with pytest.raises(KeyboardInterrupt):
            measuring.measure(squares.images, interrupt)
        assert measuring.measure(squares.images).reused >= 7


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("this must not be called")
