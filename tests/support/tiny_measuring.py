"""A measurer of coloured squares with the tiny networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny_pipeline as tiny
from watched_progress import Watched

from fgdd_fast.images.dataset import DataSet, Skipped
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.selection.records import ImageRecord

SETTINGS = MeasureSettings(crops=3, seed=0, resize="area", batch=1, threads=2)
RUNTIME = Runtime("cpu", "fp32", 1)


@contextmanager
def measurer(
    folder: Path,
    settings: MeasureSettings = SETTINGS,
    device: str = "cpu",
    model: ForegroundModel | None = None,
) -> Iterator[Measurer]:
    """A measurer with the tiny networks, or another foreground model, whose store lies in `folder`."""
    runtime = Runtime(device, "fp32", settings.threads)  # type: ignore[arg-type]
    bundle = tiny.foreground_bundle(folder)
    foreground = model or SaliencyModel(bundle, runtime, batch=settings.batch, resize=settings.resize)
    batch = settings.batch * VIEWS_PER_INFERENCE
    teacher = Teacher(tiny.teacher_bundle(folder), runtime, view="pad", tile_size=8, batch=batch)
    with Store(folder / "store") as store:
        yield Measurer(foreground, teacher, settings, store, tiny.CLASSES)
    foreground.close()
    teacher.close()


def measure(
    data: DataSet,
    folder: Path,
    settings: MeasureSettings = SETTINGS,
    device: str = "cpu",
    model: ForegroundModel | None = None,
) -> tuple[Measured, list[ImageRecord | Skipped]]:
    with measurer(folder, settings, device, model) as measuring:
        watched = Watched()
        measured = measuring.measure(data.images, progress=watched)
        assert watched.steps[-1] == ("Measuring", len(data.images))
        return measured, list(measuring.records(data.images))
