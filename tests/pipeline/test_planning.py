"""Deciding reads one class after another, and keeps no record that it has decided on."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from record_strategies import make_record

from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.options import MeasureOptions, PlanOptions
from fgdd_fast.planning import decide, tiles_with_features
from fgdd_fast.selection.records import ImageRecord

CLASSES, IMAGES = tuple(f"class {number}" for number in range(9)), 20


class Counted:
    """Gives records of images, and counts those that somebody holds."""

    features: Any = SimpleNamespace(of=None)

    def __init__(self) -> None:
        self._held = weakref.WeakSet[ImageRecord]()
        self.most = 0

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord]:
        for place, image in enumerate(images):
            record = make_record(image.source, place / IMAGES, full=place / 7, crops=(place / 5,))
            self._held.add(record)
            self.most = max(self.most, len(self._held))
            yield record


def test_the_records_of_two_classes_are_held_at_most() -> None:
    images = tuple(SourceImage(f"{name}/{n}.jpg", name, Path()) for name in CLASSES for n in range(IMAGES))
    dataset = DataSet(Path(), CLASSES, images, ())
    counted, options = Counted(), MeasureOptions(teacher="none")
    plan = decide(
        dataset, images, counted, PlanOptions(ipc=2, rule="mean", keep_foreground=0).settings(options)
    )
    assert sum(len(part.sources) for part in plan.classes) == len(images)
    by_features = PlanOptions(ipc=2, rule="mean", ranking="kmeans", keep_foreground=0).settings(options)
    deque(tiles_with_features(dataset, images, counted, by_features), maxlen=0)
    assert counted.most <= 2 * IMAGES + 1
