"""What the store holds of images, and what is missing of them: the store's keys for a pair of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod, resize_arithmetic
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.store import KnownFile, Measurement, Store, file_signature
from fgdd_fast.models.foreground import Foreground, ForegroundModel
from fgdd_fast.models.network import Teacher, fingerprint_text
from fgdd_fast.selection.records import ImageRecord, View


@dataclass(frozen=True)
class MeasureSettings:
    """How images are measured.

    Attributes:
        crops: candidate crops of each image.
        seed: of the candidate crops.
        resize: how tiles are resized.
        batch: images an inference.
        threads: processor threads.
        shares: whether records say how much of the foreground each crop keeps. That is measured with every
            foreground, but crops that were added later lack it: the mask tells, and where an older store
            holds none, the foreground is found again.
        hashes: whether records have perceptual hashes.
    """

    crops: int
    seed: int
    resize: ResizeMethod
    batch: int
    threads: int
    shares: bool = False
    hashes: bool = False


@dataclass(frozen=True)
class MissingWork:
    """What is missing of an image.

    Attributes:
        foreground: whether its foreground has to be found.
        boxes: the boxes whose losses are not known, each once.
        crops: where the foreground has to be found, the crops whose shares of it are measured.
        hash: whether its perceptual hash has to be computed.
    """

    foreground: bool
    boxes: tuple[Box, ...]
    crops: tuple[Box, ...]
    hash: bool

    def __bool__(self) -> bool:
        return self.foreground or self.hash or bool(self.boxes)


class StoreLookup:
    """Looks images up under the fingerprints of two models and of how they are used.

    Args:
        foreground: finds foregrounds; asked for a class, it has a fingerprint for each.
        teacher: measures losses; knows every class.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
        classes: of the images.

    Attributes:
        view_fingerprint: number of the way in which the teacher sees views.
    """

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
    ) -> None:
        self._store = store
        self._settings = settings
        self._labels = {name: teacher.label(name) for name in classes}
        self._foreground_fingerprints = {
            name: store.fingerprint(fingerprint_text(foreground.fingerprint(name))) for name in classes
        }
        arithmetic = resize_arithmetic(settings.resize)
        views = {"view": teacher.view, "tile": str(teacher.tile_size), "resize": arithmetic}
        self.view_fingerprint = store.fingerprint(fingerprint_text(teacher.fingerprint, views))

    def known_file(self, image: SourceImage) -> KnownFile | None:
        """The content of an image's file, if it has not changed since it was read."""
        try:
            return self._store.known_file(image.path, file_signature(image.path))
        except OSError:
            return None

    def record(self, image: SourceImage, known: KnownFile) -> ImageRecord | None:
        """Everything that the decisions need to know of an image; None where some of it is missing."""
        fingerprint = self._foreground_fingerprints[image.class_name]
        occupancy = self._store.occupancy(known.sha256, fingerprint)
        losses = self._losses(image, known)
        full, *crops = self._boxes(image, known.width, known.height)
        shares = self._shares(known, fingerprint, crops)
        perceptual_hash = self._store.perceptual_hash(known.sha256) if self._settings.hashes else None
        if occupancy is None or not losses.keys() >= {full, *crops} or shares is None:
            return None
        if self._settings.hashes and perceptual_hash is None:
            return None
        return ImageRecord(
            image.source,
            known.sha256,
            image.class_name,
            occupancy,
            View(full, losses[full]),
            tuple(View(crop, losses[crop], shares.get(crop)) for crop in crops),
            perceptual_hash,
        )

    def needs(self, image: SourceImage, known: KnownFile) -> MissingWork | None:
        """What is missing of an image; None when nothing is."""
        fingerprint = self._foreground_fingerprints[image.class_name]
        everything = self.missing_of_unknown(image, known.width, known.height)
        losses = self._losses(image, known)
        foreground = (
            self._store.occupancy(known.sha256, fingerprint) is None
            or self._shares(known, fingerprint, everything.crops) is None
        )
        needs = MissingWork(
            foreground,
            tuple(box for box in everything.boxes if box not in losses),
            everything.crops if foreground else (),
            everything.hash and self._store.perceptual_hash(known.sha256) is None,
        )
        return needs or None

    def missing_of_unknown(self, image: SourceImage, width: int, height: int) -> MissingWork:
        """What is missing of an image whose content was never measured; for any thread."""
        full, *crops = self._boxes(image, width, height)
        return MissingWork(
            True, tuple(dict.fromkeys((full, *crops))), tuple(dict.fromkeys(crops)), self._settings.hashes
        )

    def measurement(
        self,
        image: SourceImage,
        signature: str,
        known: KnownFile,
        foreground: Foreground | None,
        losses: Mapping[Box, float],
        shares: Mapping[Box, float] | None = None,
        perceptual_hash: int | None = None,
    ) -> Measurement:
        """What was measured of an image, under its fingerprints and label; for any thread."""
        return Measurement(
            path=image.path,
            signature=signature,
            known=known,
            foreground=foreground,
            foreground_fingerprint=self._foreground_fingerprints[image.class_name],
            losses=losses,
            label=self._labels[image.class_name],
            loss_fingerprint=self.view_fingerprint,
            shares=shares or {},
            perceptual_hash=perceptual_hash,
        )

    def _losses(self, image: SourceImage, known: KnownFile) -> dict[Box, float]:
        return self._store.losses(known.sha256, self.view_fingerprint, self._labels[image.class_name])

    def _shares(self, known: KnownFile, fingerprint: int, crops: Sequence[Box]) -> Mapping[Box, float] | None:
        """The share of the foreground within each crop; empty where none is needed, None where one lacks."""
        if not self._settings.shares:
            return {}
        shares = self._store.shares(known.sha256, fingerprint)
        if shares.keys() >= set(crops):
            return shares
        mask = self._store.mask(known.sha256, fingerprint)
        if mask is None:
            return None
        return dict(zip(crops, kept_shares(mask, crops, known.width, known.height), strict=True))

    def _boxes(self, image: SourceImage, width: int, height: int) -> tuple[Box, ...]:
        """The whole image first, then its candidate crops."""
        settings = self._settings
        crops = candidate_boxes(image.source, width, height, count=settings.crops, seed=settings.seed)
        return (Box(0, 0, width, height), *crops)
