"""Look closely for the foreground only where decisions need it.

A quick model looks at every image. The one that was asked for looks at those whose tiles the ranking may
take, until none of them is left; and at those nearest to their class's threshold, until thresholds are as
sure as looks are. How sure both are is told by a sample, which is looked at in a mirror as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil

import numpy as np

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.place import Location
from fgdd_fast.measurement.looks import Looks
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.whole import WholeMeasurer
from fgdd_fast.planning import MosaicSettings, Plan, decide, tiles_with_features
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.ranking import Ranking, find_ranking
from fgdd_fast.selection.records import ImageRecord, Tile
from fgdd_fast.selection.sampling import own_doubt, threshold_doubt
from fgdd_fast.selection.thresholds import threshold_of
from fgdd_fast.selection.undecided import undecided

_log = logging.getLogger(__name__)

AnyMeasurer = Measurer | Looks | WholeMeasurer
"""Measures images for a plan, and reads what was measured back."""

SAMPLE = 64  # images, but at most a share of all
SAMPLE_SHARE = 0.05
STEP = 0.05  # of a class's images, by which more of those near the threshold are looked at


def look_where_needed(
    looks: Looks, images: Sequence[SourceImage], settings: MosaicSettings, *, progress: Progress = SILENT
) -> None:
    """Look closer at the images on whose foreground a plan depends.

    Which these are depends on the images, the models and the settings alone.

    Args:
        looks: of which the quick one was taken at all images.
        images: the pool, without the images that could not be measured.
        settings: what is to be decided.
        progress: told how far looking is.

    Raises:
        DataError: a class has too few images.
        FgddError: a model or the store failed; what was measured until then is kept.
    """
    search = _Search(looks, images, settings, progress)
    search.look_at_undecided()
    if not settings.rule.needs_foreground or len(looks.looked) == len(images):
        return
    errors = search.compare()
    search.look_at_undecided()
    while unsure := search.unsure_classes(*errors):
        search.look_near_threshold(unsure)
        search.look_at_undecided()


def decide_measured(
    dataset: DataSet,
    images: Sequence[SourceImage],
    measurer: AnyMeasurer,
    settings: MosaicSettings,
    left_out: Sequence[Skipped],
    paths_of: Callable[[Iterable[Tile]], Mapping[str, Location]],
    progress: Progress,
) -> Plan:
    """Decide, and measure first what that needs: closer looks, and features.

    Args:
        dataset, images, measurer, settings, left_out: see `fgdd_fast.planning.decide`.
        paths_of: says where each source of tiles lies.
        progress: told how far measuring is.

    Raises:
        DataError: a class has too few images.
        FgddError: a model or the store failed; what was measured until then is kept.
    """
    while True:
        if isinstance(measurer, Looks):
            look_where_needed(measurer, images, settings, progress=progress)
        wanted = measurer.features.missing(tiles_with_features(dataset, images, measurer, settings, left_out))
        measurer.features.measure(wanted, paths_of(wanted), progress=progress)
        plan = decide(dataset, images, measurer, settings, left_out)
        if not isinstance(measurer, Looks):
            return plan
        # Where the foreground changes nothing, tiles are taken without a closer look; figures need one.
        taken = {tile.source for part in plan.classes for tile in part.selection.tiles} - measurer.looked
        if not taken:
            return plan
        measurer.look([image for image in images if image.source in taken], progress=progress)


def look_again(measurer: AnyMeasurer, plan: Plan, images: Sequence[SourceImage]) -> AnyMeasurer:
    """Return a measurer that reads what a plan was decided from; it looks where that was looked."""
    if isinstance(measurer, Looks):
        known = {source for part in plan.classes for source in part.looked_at}
        measurer.look([image for image in images if image.source in known])
    return measurer


class _Search:
    """Looks closer at images, class by class."""

    def __init__(
        self, looks: Looks, images: Sequence[SourceImage], settings: MosaicSettings, progress: Progress
    ) -> None:
        self._looks = looks
        self._settings = settings
        self._progress = progress
        kind = find_ranking(settings.selection.ranking)
        self._ranking: Ranking | None = None
        if kind.by_loss:
            self._ranking = kind.make(lambda _: np.empty((0, 0)), settings.seed)
        self._images = images
        self._classes: dict[str, list[SourceImage]] = {}
        for image in images:
            self._classes.setdefault(image.class_name, []).append(image)

    def look_at_undecided(self) -> None:
        """Look at all whose tiles may be taken, until it is certain what is taken."""
        classes = list(self._classes)
        while classes:
            opened = {name: self._undecided(name) for name in classes}
            classes = [name for name in classes if opened[name]]
            if classes:
                self._look([image for images in opened.values() for image in images])

    def compare(self) -> tuple[list[float], list[float]]:
        """How far off the quick looks at a sample are, and the looks in a mirror."""
        by_lot = sorted(self._images, key=self._lot)
        count = min(SAMPLE, ceil(SAMPLE_SHARE * len(by_lot)))
        return self._looks.compare(by_lot[:count], progress=self._progress)

    def unsure_classes(self, quick: Sequence[float], own: Sequence[float]) -> list[str]:
        """The classes whose thresholds are less sure than looks are, if all classes together are.

        Args:
            quick, own: errors of a sample, as `compare` tells them.
        """
        if not quick:
            return []
        rule, seed = self._settings.rule, self._settings.seed
        images, by_quick, by_own = [], [], []
        for name in self._classes:
            records = self._records(name)
            known = [record.occupancy for record in records if record.looked]
            unknown = [record.occupancy for record in records if not record.looked]
            threshold = threshold_of(rule, known + unknown)
            distances = [record.occupancy - threshold for record in records]
            images.append(len(records))
            by_quick.append(threshold_doubt(rule, known, unknown, quick, seed) if unknown else 0.0)
            by_own.append(own_doubt(distances, own) if records else 0.0)
        unsure, allowed = np.average(by_quick, weights=images), np.average(by_own, weights=images)
        _log.debug(
            "%d images looked at: %.3f unsure; in a mirror %.3f", len(self._looks.looked), unsure, allowed
        )
        if unsure <= allowed:
            return []
        return [name for name, one, other in zip(self._classes, by_quick, by_own, strict=True) if one > other]

    def look_near_threshold(self, names: Sequence[str]) -> None:
        """Look at some more images of each class, those nearest to the threshold."""
        chosen: list[SourceImage] = []
        for name in names:
            records = self._records(name)
            threshold = threshold_of(self._settings.rule, [record.occupancy for record in records])
            nearest = sorted(
                (abs(record.occupancy - threshold), record.source) for record in records if not record.looked
            )
            sources = {source for _, source in nearest[: ceil(STEP * len(records))]}
            chosen += [image for image in self._classes[name] if image.source in sources]
        self._look(chosen)

    def _undecided(self, name: str) -> list[SourceImage]:
        settings = self._settings
        records = self._records(name)
        if not records:
            return []
        sources = undecided(
            records,
            settings.rule,
            settings.tiles_of(name),
            settings.seed,
            self._ranking,
            settings.selection,
        )
        return [image for image in self._classes[name] if image.source in sources]

    def _records(self, name: str) -> list[ImageRecord]:
        found = self._looks.records(self._classes[name])
        return [record for record in found if isinstance(record, ImageRecord)]

    def _look(self, images: Sequence[SourceImage]) -> None:
        self._looks.look(images, progress=self._progress)

    def _lot(self, image: SourceImage) -> bytes:
        return seeded_hash("fgdd looks", self._settings.seed, image.source).digest()
