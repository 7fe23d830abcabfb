"""What the models say of the frames of a stream: a record of each, as a batch has it, and its tiles.

Only the pixels are read once: nothing of a frame is looked up later. Candidate crops are drawn by content,
because frames have no lasting names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import ImageError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_image, read_file
from fgdd_fast.images.depth import at_depth
from fgdd_fast.images.near_duplicates import perceptual_hash
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.models.foreground import Foreground, Inputs
from fgdd_fast.models.network import stacked
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.thresholds import RULE_KINDS
from fgdd_fast.streaming.labels import LabelOf
from fgdd_fast.streaming.sources import Frame

UNLABELLED = "no class is known"
UNSURE = "the teacher is not confident"
UNKNOWN = "a class that the teacher does not know"


@dataclass(frozen=True)
class Left:
    """A frame that is left out, and why; its perceptual hash, where others are held against it."""

    frame: Frame
    reason: str
    perceptual_hash: int | None = None


@dataclass(frozen=True)
class Copied:
    """A frame of the same bytes as an earlier one of its class."""

    frame: Frame
    class_name: str
    sha256: str


@dataclass(frozen=True)
class Read:
    """A frame that was decoded, reduced to what the networks take of it.

    Attributes:
        frame: it, without its pixels.
        class_name: its class; empty where the teacher is to tell it.
        sha256: hexadecimal hash of its file's bytes, or of its pixels.
        perceptual_hash: 64 bits; None where nobody asked for them.
        foreground: what the foreground model takes.
        full: the whole of it.
        crops: the candidate crops.
        tiles: the pixels of these as tiles.
    """

    frame: Frame
    class_name: str
    sha256: str
    perceptual_hash: int | None
    foreground: Inputs
    full: Box
    crops: tuple[Box, ...]
    tiles: dict[Box, Pixels]


@dataclass(frozen=True)
class Taken:
    """A frame that was measured."""

    frame: Frame
    perceptual_hash: int | None
    record: ImageRecord
    tiles: dict[Box, Pixels]


Outcome: TypeAlias = Left | Copied | Taken


class FrameMeasurer:
    """Reads and measures frames; its methods may run in several threads.

    Args:
        pipeline: its models, and how tiles are measured.
        settings: how they are chosen.
        label_of: tells the class of a frame by its name; None where the teacher tells it.
        confident: the probability in [0, 1] that the teacher has to give the class that it tells.
        is_small: whether a class may need crops in any case.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: MosaicSettings,
        *,
        label_of: LabelOf | None,
        confident: float,
        is_small: Callable[[str], bool],
    ) -> None:
        self._pipeline = pipeline
        self._teacher = pipeline.teacher
        self._settings = settings
        self._label_of = label_of
        self._confident = confident
        self._is_small = is_small
        self._hashes = settings.selection.needs_hashes
        self._names = pipeline.teacher.bundle.classes or ()
        self._known = ByClassName.places(self._names)
        self._whole = RULE_KINDS[settings.rule.kind].always == "full"

    @property
    def group(self) -> int:
        """Frames an inference."""
        return self._teacher.batch if self._whole else self._pipeline.scored_batch

    def read(self, frame: Frame) -> Read | Left:
        """Read and decode a frame, and cut its tiles."""
        class_name = "" if self._label_of is None else self._label_of(frame.name) or ""
        if self._label_of is not None and not class_name:
            return Left(frame, UNLABELLED)
        if class_name and (class_name not in self._known or _is_no_folder(class_name)):
            return Left(frame, UNKNOWN)
        try:
            pixels, sha256 = self._decoded(frame)
            frame = replace(frame, content=None, pixels=None)
            height, width = pixels.shape[:2]
            root = self._pipeline.dataset.root
            full, crops = Box(0, 0, width, height), tuple[Box, ...]()
            if not self._whole or self._is_small(class_name):
                options = self._pipeline.options
                crops = candidate_boxes(sha256, width, height, count=options.crops, seed=options.seed)
            return Read(
                frame,
                class_name,
                sha256,
                perceptual_hash(pixels) if self._hashes else None,
                self._pipeline.foreground.prepare(pixels, SourceImage(frame.name, class_name, root)),
                full,
                crops,
                {box: self._tile(pixels, box) for box in (full, *crops)},
            )
        except ImageError as error:
            return Left(frame, error.problem)

    def _decoded(self, frame: Frame) -> tuple[Pixels, str]:
        """The pixels of a frame, and the hash that names its content."""
        if frame.pixels is not None:
            shape = repr(frame.pixels.shape).encode()
            return frame.pixels, hashlib.sha256(shape + frame.pixels.tobytes()).hexdigest()
        if frame.path is not None:
            file = read_file(frame.path)
            content, sha256 = file.content, file.sha256
        else:
            content = frame.content or b""
            sha256 = hashlib.sha256(content).hexdigest()
        return decode_image(at_depth(content, self._settings.sixteen_bit)), sha256

    def _tile(self, pixels: Pixels, box: Box) -> Pixels:
        return tile_pixels(pixels, box, self._teacher.tile_size, self._settings.resize)

    def measure(self, items: Sequence[Read | Left | Copied]) -> list[Outcome]:
        """Measure frames that were read; others go through, and all keep their order."""
        labelled = self._labelled(items) if self._label_of is None else items
        reads = [item for item in labelled if isinstance(item, Read)]
        foregrounds = iter(self._foregrounds(reads))
        losses = iter(self._losses(reads))
        outcomes: list[Outcome] = []
        for item in labelled:
            if not isinstance(item, Read):
                outcomes.append(item)
                continue
            found = next(foregrounds)
            shares: Iterable[float | None] = (None for _ in item.crops)
            if found.mask is not None:
                shares = kept_shares(found.mask, item.crops, item.full.width, item.full.height)
            loss = {box: float(next(losses)) for box in item.tiles}
            record = ImageRecord(
                item.frame.name,
                item.sha256,
                item.class_name,
                found.occupancy,
                View(item.full, loss[item.full]),
                tuple(View(box, loss[box], share) for box, share in zip(item.crops, shares, strict=True)),
            )
            outcomes.append(Taken(item.frame, item.perceptual_hash, record, item.tiles))
        return outcomes

    def _labelled(self, items: Sequence[Read | Left | Copied]) -> list[Read | Left | Copied]:
        """The frames with the classes that the teacher tells."""
        views = [self._teacher.show(item.tiles[item.full]) for item in items if isinstance(item, Read)]
        answers = iter(self._teacher.logits(stacked(views)).astype(np.float64) if views else ())
        return [self._named(item, next(answers)) if isinstance(item, Read) else item for item in items]

    def _named(self, item: Read, logits: NDArray[np.float64]) -> Read | Left:
        """The frame with the class of the highest logit, if the teacher is confident."""
        place = int(logits.argmax())
        name, probability = self._names[place], 1 / float(np.exp(logits - logits[place]).sum())
        if not probability >= self._confident:  # nor where it is not finite
            return Left(item.frame, UNSURE, item.perceptual_hash)
        if _is_no_folder(name):
            return Left(item.frame, UNKNOWN, item.perceptual_hash)
        if self._whole and not self._is_small(name):
            item = replace(item, crops=(), tiles={item.full: item.tiles[item.full]})
        return replace(item, class_name=name)

    def _foregrounds(self, reads: Sequence[Read]) -> Sequence[Foreground]:
        if not reads:
            return ()
        return self._pipeline.foreground.find([item.foreground for item in reads], masks=True)

    def _losses(self, reads: Sequence[Read]) -> Iterable[np.float32]:
        """The losses of all tiles, one frame after another."""
        views = [self._teacher.show(tile) for item in reads for tile in item.tiles.values()]
        return self._teacher.losses_of(views, [item.class_name for item in reads for _ in item.tiles])


def _is_no_folder(class_name: str) -> bool:
    return "/" in class_name or class_name.startswith(".")


def grouped(items: Iterable[Read | Left | Copied | None], size: int) -> Iterator[list[Read | Left | Copied]]:
    """Gather frames for an inference each; fewer where None says that no other comes for a moment."""
    group: list[Read | Left | Copied] = []
    for item in items:
        if item is not None:
            group.append(item)
        if item is None or len(group) >= size:
            yield group
            group = []
    yield group
