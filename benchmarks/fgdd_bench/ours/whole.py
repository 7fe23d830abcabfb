"""From files to mosaics: as `fgdd-fast distill` does it, or the parts of a reference in a row.

A reference finds foregrounds, scores views and composes mosaics one after the other, as separate scripts do,
and reads the files each time; on photographs that is little beside the networks. Which tiles the mosaics
take follows from each way's own answers, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from fgdd_bench.harness.originals import Original, compose_plan, record_of
from fgdd_bench.harness.sources import unusable
from fgdd_bench.harness.subject import Composition, Subject, teacher_of
from fgdd_bench.harness.ways import Answer, Column, PathName, Stage, Task, Way
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.factory import open_foreground
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, open_teacher
from fgdd_fast.output.writing import write_mosaics
from fgdd_fast.planning import MosaicSettings, decide
from fgdd_fast.selection.records import ImageRecord

PARTS: tuple[PathName, ...] = ("foreground", "teacher", "compose")
# Opens a part of the whole; it composes the mosaics that are given.
OpenPart = Callable[[PathName, Composition | None], Way]


class WholeProduct(Way):
    """A pool is measured into a fresh store and distilled.

    Args:
        task: crops, seed, tiles and threads.
        subject: the teacher, and how engines are opened.
        choice: the foreground model, and how it is asked.
        settings: the mosaics.
        open_part: opens the product along a part of the way; for the stages.
    """

    column = "product"

    def __init__(
        self,
        task: Task,
        subject: Subject,
        choice: ForegroundChoice,
        settings: MosaicSettings,
        open_part: OpenPart,
    ) -> None:
        cv2.setNumThreads(1)  # as the product does: its own threads are the parallelism
        teacher, _ = teacher_of(subject)
        self._settings = settings
        self._open_part = open_part
        self._composition: Composition | None = None
        self._classes = subject.classes
        self._measuring = MeasureSettings(task.crops, task.seed, subject.resize, subject.batch, task.threads)
        with ExitStack() as opened:
            self._foreground = open_foreground(
                choice,
                runtime=subject.runtime,
                batch=subject.batch,
                resize=subject.resize,
                threads=task.threads,
            )
            opened.enter_context(closing(self._foreground))
            self._teacher = open_teacher(
                teacher,
                runtime=subject.runtime,
                view="pad",
                tile_size=task.tile_size,
                batch=subject.batch * VIEWS_PER_INFERENCE,
            )
            opened.enter_context(closing(self._teacher))
            self._opened = opened.pop_all()
        form = ", tiles" if self._teacher.bundle.tile_of else ""
        self.arithmetic = f"{self._foreground.description} + {self._teacher.engine.arithmetic}{form}"

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        threads = self._measuring.threads
        dataset = DataSet(images[0].root, self._classes, tuple(images), ())
        with TemporaryDirectory() as folder, Store(Path(folder) / "store") as store:
            measurer = Measurer(self._foreground, self._teacher, self._measuring, store, self._classes)
            for skipped in measurer.measure(images).skipped:
                raise unusable(skipped.source, skipped.reason)
            plan = decide(dataset, images, measurer, self._settings)
            self._composition = Composition(plan, self._settings)
            paths = {image.source: image.path for image in images}
            written = write_mosaics(plan, paths, Path(folder), threads=threads)
            mosaics = [read_image(Path(folder) / file).pixels for file, _, _ in written]
            records = [record for record in measurer.records(images) if not isinstance(record, Skipped)]
            return whole_answer(records, mosaics)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`; an image is read and decoded once for both networks."""
        if self._composition is None:
            self.run(images)
        foreground, teacher, compose = (
            self._opened.enter_context(self._open_part(path, self._composition)).stages(images)
            for path in PARTS
        )
        return [*foreground, *(stage for stage in teacher if stage.name not in ("read", "decode")), *compose]

    def close(self) -> None:
        """See `Way.close`."""
        self._opened.close()


class WholeReference(Way):
    """A reference's parts, one after the other.

    Args:
        column: whose.
        task: what every way is given.
        originals: the images; their sizes and hashes are known to it.
        settings: the mosaics.
        open_part: opens the reference along a part of the way.
    """

    def __init__(
        self,
        column: Column,
        task: Task,
        originals: Sequence[Original],
        settings: MosaicSettings,
        open_part: OpenPart,
    ) -> None:
        self.column = column
        self._task = task
        self._originals = {original.image: original for original in originals}
        self._settings = settings
        self._open_part = open_part
        self._composer: tuple[Composition, Way] | None = None
        with ExitStack() as opened:
            self._foreground, self._teacher = (
                opened.enter_context(open_part(path, None)) for path in PARTS[:2]
            )
            self._opened = opened.pop_all()
        self.arithmetic = " + ".join(dict.fromkeys([self._foreground.arithmetic, self._teacher.arithmetic]))

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        occupancies = self._foreground.run(images)["occupancy"]
        losses = self._teacher.run(images)["losses"]
        records = [
            record_of(self._originals[image], float(occupancy), row, self._task)
            for image, occupancy, row in zip(images, occupancies, losses, strict=True)
        ]
        composer = self._composer_of(compose_plan(records, self._settings))
        return whole_answer(records, composer.run(images)["mosaics"])

    def _composer_of(self, composition: Composition) -> Way:
        """The way that composes: opened by the first run, which warms up; kept while the plan is the same."""
        if self._composer is None or self._composer[0] != composition:
            if self._composer is not None:
                self._composer[1].close()
            way = self._opened.enter_context(self._open_part("compose", composition))
            self._composer = composition, way
        return self._composer[1]

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`."""
        if self._composer is None:
            self.run(images)
        assert self._composer is not None
        parts = (self._foreground, self._teacher, self._composer[1])
        return [stage for part in parts for stage in part.stages(images)]

    def close(self) -> None:
        """See `Way.close`."""
        self._opened.close()


def whole_answer(records: Sequence[ImageRecord], mosaics: Iterable[Pixels]) -> Answer:
    """The answer of the path `all`."""
    losses = [[view.loss for view in (record.full, *record.crops)] for record in records]
    return {
        "occupancy": np.array([record.occupancy for record in records], np.float32),
        "losses": np.array(losses, np.float32),
        "mosaics": np.stack(list(mosaics)),
    }
