"""What the store holds of images, and what is missing of them: the store's keys for a pair of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import nan
from types import MappingProxyType
from typing import NamedTuple

from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.place import Location, file_signature
from fgdd_fast.images.resize import ResizeMethod, resize_arithmetic
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.store import Key, Store
from fgdd_fast.measurement.store_format import KnownFile, Measurement
from fgdd_fast.models.foreground import FingerprintsImages, Foreground, ForegroundModel, Pixels
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
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.
    """

    crops: int
    seed: int
    resize: ResizeMethod
    batch: int
    threads: int
    shares: bool = False
    hashes: bool = False
    sixteen_bit: SixteenBit = "shift"

    @property
    def reading(self) -> Mapping[str, str]:
        """What the store's keys say of how images are read; nothing for how they always were."""
        return {} if self.sixteen_bit == "shift" else {"sixteen-bit": self.sixteen_bit}


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


def all_work(
    image: SourceImage, width: int, height: int, settings: MeasureSettings, *, scored: bool
) -> MissingWork:
    """Return what is missing of an image whose content was never measured.

    Args:
        image: which one.
        width, height: its size in pixels.
        settings: how it is measured.
        scored: whether losses are measured.
    """
    full, *crops = _boxes(image, width, height, settings)
    boxes = tuple(dict.fromkeys((full, *crops))) if scored else ()
    return MissingWork(True, boxes, tuple(dict.fromkeys(crops)), settings.hashes)


def _boxes(image: SourceImage, width: int, height: int, settings: MeasureSettings) -> tuple[Box, ...]:
    """The whole image first, then its candidate crops."""
    crops = candidate_boxes(image.source, width, height, count=settings.crops, seed=settings.seed)
    return (Box(0, 0, width, height), *crops)


class Found(NamedTuple):
    """What was newly found of an image: a `Measurement` without the keys under which it is kept."""

    image: SourceImage
    signature: str
    known: KnownFile
    foreground: Foreground | None = None
    losses: Mapping[Box, float] = MappingProxyType({})
    shares: Mapping[Box, float] = MappingProxyType({})
    perceptual_hash: int | None = None
    mask: bytes | None = None


class StoreLookup:
    """Looks images up, many at once, under the fingerprints of two models and of how they are used.

    Args:
        foreground: finds foregrounds; it has a fingerprint for each class, and maybe for each image.
        teacher: measures losses; knows every class. Without one, no loss is looked up, and records have none.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
        classes: of the images.

    Attributes:
        view_fingerprint: number of the way in which the teacher sees views; 0 without one.
    """

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher | None,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
    ) -> None:
        self._foreground = foreground
        self._settings = settings
        self._store = store
        self._scored = teacher is not None
        self._labels = {name: teacher.label(name) if teacher else 0 for name in classes}
        self._class_fingerprints = {
            name: store.fingerprint(fingerprint_text(foreground.fingerprint(name), settings.reading))
            for name in classes
        }
        self.view_fingerprint = 0
        if teacher is not None:
            arithmetic = resize_arithmetic(settings.resize)
            views = {"view": teacher.view, "tile": str(teacher.tile_size), "resize": arithmetic}
            self.view_fingerprint = store.fingerprint(
                fingerprint_text(teacher.fingerprint, views, settings.reading)
            )

    def unchanged(self, images: Sequence[SourceImage]) -> list[KnownFile | None]:
        """Return the content of each image's file, if it has not changed since it was read."""
        signatures: dict[Location, str] = {}
        paths = [image.location for image in images]
        for path in paths:
            with suppress(OSError):
                signatures[path] = file_signature(path)
        known = self._store.known_files(signatures)
        return [known.get(path) for path in paths]

    def look_up(self, found: Sequence[tuple[SourceImage, KnownFile]]) -> list[ImageRecord | MissingWork]:
        """Return everything that the decisions need to know of each image, or what of it is missing."""
        settings, scored = self._settings, self._scored
        views = [_boxes(image, known.width, known.height, settings) for image, known in found]
        foregrounds = self._foregrounds(found, views)
        keys = [self._loss_key(image, known) for image, known in found]
        losses = self._store.losses(keys)
        hashes = {}
        if settings.hashes:
            hashes = self._store.perceptual_hashes(known.sha256 for _, known in found)
        answers: list[ImageRecord | MissingWork] = []
        for (image, known), boxes, foreground, key in zip(found, views, foregrounds, keys, strict=True):
            known_losses = losses.get(key, {})
            unscored = tuple(dict.fromkeys(box for box in boxes if box not in known_losses)) if scored else ()
            unhashed = settings.hashes and known.sha256 not in hashes
            if foreground is None or unscored or unhashed:
                crops = tuple(dict.fromkeys(boxes[1:])) if foreground is None else ()
                answers.append(MissingWork(foreground is None, unscored, crops, unhashed))
                continue
            occupancy, shares = foreground
            full, *others = (
                View(box, known_losses[box] if scored else nan, shares.get(box) if place else None)
                for place, box in enumerate(boxes)
            )
            hashed, content = hashes.get(known.sha256), known.sha256
            answers.append(
                ImageRecord(image.source, content, image.class_name, occupancy, full, tuple(others), hashed)
            )
        return answers

    def masks(self, found: Sequence[tuple[SourceImage, KnownFile]]) -> list[Pixels | None]:
        """Return the foreground's mask of each image, as `Store.masks` has it; None where none is kept."""
        keys, _ = self._kept(found)
        masks = dict(self._store.masks(key for key in keys if key is not None))
        return [None if key is None else masks.get(key) for key in keys]

    def measurements(self, found: Sequence[Found]) -> list[Measurement]:
        """Return what was found, under its fingerprints and labels."""
        return [
            Measurement(
                path=each.image.location,
                signature=each.signature,
                known=each.known,
                foreground=each.foreground,
                foreground_fingerprint=fingerprint,
                losses=each.losses,
                label=self._labels[each.image.class_name],
                loss_fingerprint=self.view_fingerprint,
                shares=each.shares,
                perceptual_hash=each.perceptual_hash,
                mask=each.mask,
            )
            for each, (fingerprint, *_) in zip(
                found, self._fingerprints([each.image for each in found]), strict=True
            )
        ]

    def _fingerprints(self, images: Sequence[SourceImage]) -> list[tuple[int, ...]]:
        """The numbers under which each image's foreground may be kept; new ones are under the first."""
        by_class: list[tuple[int, ...]] = [(self._class_fingerprints[image.class_name],) for image in images]
        if not isinstance(self._foreground, FingerprintsImages):
            return by_class
        texts = [
            fingerprint_text(self._foreground.image_fingerprint(image), self._settings.reading)
            for image in images
        ]
        own = self._store.fingerprints(texts)
        return [(number, *older) for number, older in zip(own, by_class, strict=True)]

    def _loss_key(self, image: SourceImage, known: KnownFile) -> tuple[str, int, int]:
        return known.sha256, self.view_fingerprint, self._labels[image.class_name]

    def _foregrounds(
        self, found: Sequence[tuple[SourceImage, KnownFile]], views: Sequence[tuple[Box, ...]]
    ) -> list[tuple[float, Mapping[Box, float]] | None]:
        """Occupancy of each image and, where wanted, the share of its foreground within each crop."""
        kept, occupancies = self._kept(found)
        shares: list[Mapping[Box, float] | None] = [{} for _ in found]
        if self._settings.shares:
            shares = self._shares(kept, found, views)
        return [
            None if key is None or within is None else (occupancies[key], within)
            for key, within in zip(kept, shares, strict=True)
        ]

    def _kept(
        self, found: Sequence[tuple[SourceImage, KnownFile]]
    ) -> tuple[list[Key | None], Mapping[Key, float]]:
        """The key under which each image's foreground is kept, if it is, and occupancies by their keys."""
        numbers = self._fingerprints([image for image, _ in found])
        keys = [
            [(known.sha256, number) for number in own] for (_, known), own in zip(found, numbers, strict=True)
        ]
        occupancies = self._store.occupancies(chain.from_iterable(keys))
        return [next((key for key in own if key in occupancies), None) for own in keys], occupancies

    def _shares(
        self,
        keys: Sequence[Key | None],
        found: Sequence[tuple[SourceImage, KnownFile]],
        views: Sequence[tuple[Box, ...]],
    ) -> list[Mapping[Box, float] | None]:
        """The share of the foreground within each crop of each image; None where one lacks."""
        stored = self._store.shares(key for key in keys if key is not None)
        shares: list[Mapping[Box, float] | None] = []
        lacking: dict[Key, list[int]] = {}
        for place, (key, (_, *crops)) in enumerate(zip(keys, views, strict=True)):
            within = {} if key is None else stored.get(key, {})
            complete = all(crop in within for crop in crops)
            shares.append(within if complete else None)
            if key is not None and not complete:
                lacking.setdefault(key, []).append(place)
        for key, mask in self._store.masks(lacking):
            for place in lacking[key]:
                known, crops = found[place][1], list(dict.fromkeys(views[place][1:]))
                kept = kept_shares(mask, crops, known.width, known.height)
                shares[place] = dict(zip(crops, kept, strict=True))
        return shares
