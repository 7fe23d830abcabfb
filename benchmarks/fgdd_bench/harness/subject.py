"""What a benchmark is about: images, models, settings and mosaics, the same for every implementation."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from fgdd_bench.harness.implementation import SCORED, SEGMENTED, Answer, PathName
from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import DataError, ImageError, SettingsError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.tiles import ScoreView
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.store_format import KnownFile
from fgdd_fast.models.foreground import Foreground, ForegroundChoice
from fgdd_fast.models.grounded_tensors import GroundedBundle, check_grounded
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.models.prompts import phrases_of, prompt_text
from fgdd_fast.options import FOREGROUND_RULE, MeasureOptions, PlanOptions
from fgdd_fast.output.mosaic import arrange
from fgdd_fast.planning import ClassPlan, MosaicSettings, Plan
from fgdd_fast.runtime.sample_images import in_turn
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.select import PLAIN, SelectionSettings, select

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every implementation is given, but models.

    Attributes:
        crops: candidate crops of each image.
        seed: of the candidate crops.
        size: side of a mosaic in pixels.
        factor: tiles along each side of a mosaic.
        view: how the teacher is shown a tile.
        threads: processor threads.
        batch: images that a reference puts into one inference; the references' own best, found beforehand.
        device: where the references run.
        gpu: number of the GPU that this is, where it is one.
    """

    crops: int = 5
    seed: int = 0
    size: int = 224
    factor: int = 2
    view: ScoreView = "pad"
    threads: int = 2
    batch: int = 2
    device: Literal["cpu", "cuda"] = "cpu"
    gpu: int = 0

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.size // self.factor

    @property
    def busy_threads(self) -> int:
        """Processor threads that a reference's network keeps busy: all, or one that feeds a GPU."""
        return 1 if self.device == "cuda" else self.threads

    def mosaics(self, ipc: int) -> MosaicSettings:
        """Return what `fgdd-fast distill --preset foreground` makes of these settings."""
        options = MeasureOptions(size=self.size, factor=self.factor, seed=self.seed, crops=self.crops)
        return PlanOptions(ipc=ipc, rule=FOREGROUND_RULE).settings(options)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The models and mosaics that every implementation works with; what its path does not need is left out.

    Attributes:
        classes: of the images.
        runtime: how this project opens a bundle's engine.
        foreground: the foreground model, in fp32, and how it is asked; of a saliency model the references
            rebuild the graph with the same weights.
        checkpoints: detector and segmenter that a Grounded SAM 2 was exported from, which the references run.
        teacher: in fp32; rebuilt likewise.
        plan: mosaics to compose.
        batch: images that this project puts into one inference of the foreground model.
        scored: images all of whose views it puts into one inference of the teacher.
    """

    classes: tuple[str, ...]
    runtime: Callable[[Bundle], Runtime]
    foreground: ForegroundChoice | None = None
    checkpoints: tuple[str, str] | None = None
    teacher: Bundle | None = None
    plan: Plan | None = None
    batch: int = 1
    scored: int = 1

    def batch_along(self, path: PathName) -> int:
        """Return how many images this project takes together along a path."""
        used = [batch for batch, paths in ((self.batch, SEGMENTED), (self.scored, SCORED)) if path in paths]
        return max(used, default=1)

    @property
    def grounded(self) -> bool:
        """Whether the foreground model is asked for classes by their names, as Grounded SAM 2 is."""
        source = None if self.foreground is None else self.foreground.source
        return isinstance(source, Bundle) and source.prompting is not None

    def foreground_bundle(self, *, grounded: bool = False) -> Bundle:
        """Return the foreground model's bundle; a SettingsError where it is missing, or of the other kind."""
        if self.foreground is None or not isinstance(self.foreground.source, Bundle):
            raise _missing("a foreground model")
        if self.grounded != grounded:
            kind = "Grounded SAM 2" if grounded else "saliency model"
            raise SettingsError(f"The foreground model {self.foreground.name} is no {kind}")
        return self.foreground.source

    def known_teacher(self) -> tuple[Bundle, tuple[str, ...]]:
        """Return the teacher, and its classes in the order of its logits.

        Raises:
            FgddError: there is none, or it does not know the images' classes.
        """
        if self.teacher is None:
            raise _missing("a teacher")
        check_classes(self.teacher, self.classes)
        return self.teacher, self.teacher.classes or ()

    def given_plan(self) -> Plan:
        """Return the mosaics; a SettingsError where there are none."""
        if self.plan is None:
            raise _missing("mosaics to compose")
        return self.plan


def _missing(what: str) -> SettingsError:
    return SettingsError(f"This path of the benchmark needs {what}, and none is given")


@dataclass(frozen=True)
class Asked:
    """How a Grounded SAM 2 is asked, for the references: networks and sizes, and the prompt of each class.

    At most so many boxes are taken of an image, with a score above the threshold in [0, 1].
    """

    parts: GroundedBundle
    texts: tuple[str, ...]
    threshold: float
    most: int


def asked_of(subject: Subject) -> Asked:
    """Return how the subject's Grounded SAM 2 is asked.

    Raises:
        FgddError: it is none, or a class cannot be looked for.
    """
    choice, parts = subject.foreground, check_grounded(subject.foreground_bundle(grounded=True))
    assert choice is not None
    prompting, threshold = parts.prompting, choice.box_threshold
    texts = tuple(prompt_text(phrases_of(name, choice.prompts), prompting.form) for name in subject.classes)
    return Asked(parts, texts, prompting.threshold if threshold is None else threshold, prompting.boxes)


@dataclass(frozen=True)
class Original:
    """An image that every implementation is given: where it is; hash and size of what is there."""

    image: SourceImage
    file: KnownFile


def choose_originals(dataset: DataSet, count: int, seed: int) -> tuple[list[Original], list[Skipped]]:
    """Take so many images from all classes in turn, and read each once, which brings its file into memory.

    Returns:
        (the images, those that cannot be used with the reason).

    Raises:
        DataError: no image can be used.
    """
    originals: list[Original] = []
    skipped: list[Skipped] = []
    first = pool(dataset, -(-count // max(len(dataset.classes), 1)), seed)
    taken = set(first)
    others = tuple(image for image in dataset.images if image not in taken)  # in place of what cannot be used
    for image in itertools.chain(in_turn(first), in_turn(others)):
        if len(originals) == count:
            break
        try:
            found = read_image(image.path)
        except ImageError as error:
            skipped.append(Skipped(image.source, error.problem))
        except OSError as error:
            skipped.append(Skipped(image.source, f"cannot be read: {error.strerror}"))
        else:
            height, width = found.pixels.shape[:2]
            originals.append(Original(image, KnownFile(found.sha256, width, height)))
    if not originals:
        reason = f"The first, {skipped[0].source}: {skipped[0].reason}." if skipped else "There are none."
        raise DataError(f"No image in {dataset.root} can be used", reason)
    return originals, skipped


def mosaics_of(originals: Iterable[Original], task: Task) -> MosaicSettings:
    """Return as many mosaics of each class as its fewest images fill, at least one."""
    counts = Counter(original.image.class_name for original in originals)
    return task.mosaics(max(min(counts.values()) // task.factor**2, 1))


def draw_plan(originals: Sequence[Original], task: Task) -> Plan:
    """Plan mosaics of tiles that are chosen by drawn occupancies and losses: composing needs no model.

    Raises:
        DataError: a class has too few images.
    """
    records = []
    for original in originals:
        drawn = [byte / 255 for byte in seeded_hash("fgdd bench", task.seed, original.image.source).digest()]
        losses = list(itertools.islice(itertools.cycle(drawn[1:]), 1 + task.crops))
        records.append(_record(original, task, drawn[0], losses, itertools.repeat(None)))
    return plan_of(records, mosaics_of(originals, task), PLAIN)


def plan_of(
    records: Sequence[ImageRecord], settings: MosaicSettings, selection: SelectionSettings | None = None
) -> Plan:
    """Plan the mosaics that follow from what was measured, within other limits than those of the settings.

    Raises:
        DataError: a class has too few images.
    """
    plans = []
    count, limits = settings.tiles_per_class, selection or settings.selection
    for name, members in sorted(by_class(records, lambda record: record.class_name).items()):
        chosen = select(members, settings.rule, count, settings.seed, settings=limits)
        sources = tuple(record.source for record in members)
        occupancies = tuple(record.occupancy for record in members)
        losses = tuple(record.full.loss for record in members)
        mosaics = arrange(chosen.tiles, settings.ipc, settings.factor)
        plans.append(ClassPlan(name, sources, occupancies, losses, chosen, mosaics))
    return Plan(settings, tuple(plans), ())


def by_class(items: Iterable[T], class_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Return the items of each class, in their order."""
    classes: defaultdict[str, list[T]] = defaultdict(list)
    for item in items:
        classes[class_of(item)].append(item)
    return classes


def records_of(originals: Sequence[Original], task: Task, answer: Answer) -> list[ImageRecord]:
    """Return what the decisions need to know of images, from an answer with occupancies and losses.

    Whatever the answer lacks counts as foreground: then every image gives its best crop, as in RDED.
    """
    count = len(originals)
    occupancies: Array = answer.get("occupancy", np.ones(count, np.float32))
    kept: Array = answer.get("kept", np.ones((count, task.crops), np.float32))
    rows = zip(originals, occupancies.tolist(), answer["losses"].tolist(), kept.tolist(), strict=True)
    return [_record(original, task, *figures) for original, *figures in rows]


def _record(
    original: Original, task: Task, occupancy: float, losses: Iterable[float], kept: Iterable[float | None]
) -> ImageRecord:
    """Return what the decisions need to know of an image: losses are of the whole, then of its crops."""
    image, file = original.image, original.file
    full, *crops = whole_and_crops(image, file.width, file.height, task)
    first, *others = losses
    views = tuple(View(*one) for one in zip(crops, others, kept))  # noqa: B905 - what is kept may go on
    return ImageRecord(image.source, file.sha256, image.class_name, occupancy, View(full, first), views)


def kept_of(originals: Sequence[Original], task: Task, masks: Array) -> Array:
    """Return the share of the foreground that each candidate crop keeps, float32 [images, crops]."""
    rows = []
    for original, mask in zip(originals, masks, strict=True):
        width, height = original.file.width, original.file.height
        _, *crops = whole_and_crops(original.image, width, height, task)
        rows.append(kept_shares(mask, crops, width, height))
    return np.array(rows, np.float32)


def whole_and_crops(image: SourceImage, width: int, height: int, task: Task) -> tuple[Box, ...]:
    """Return the boxes of an image of that many pixels: the whole of it, then its candidate crops."""
    crops = candidate_boxes(image.source, width, height, count=task.crops, seed=task.seed)
    return (Box(0, 0, width, height), *crops)


def unusable(source: str, reason: str) -> DataError:
    """Return the error of an image that cannot be used: one that is skipped would make all rates wrong."""
    return DataError(f"The image {source} cannot be used: {reason}", "Take it out of the data set.")


def foreground_answer(found: Sequence[Foreground], most: int = 0) -> Answer:
    """Return the answer of the path `foreground`, with masks of one size; most: boxes of an image, or 0."""
    boxes = np.zeros((len(found), most, 5), np.float32)
    for row, one in zip(boxes, found, strict=True):
        row[: len(one.boxes)] = np.reshape(one.boxes, (-1, 5))
    occupancies = np.array([one.occupancy for one in found], np.float32)
    masks = np.stack([one.mask for one in found if one.mask is not None])
    return {"occupancy": occupancies, "masks": masks, **({"boxes": boxes} if most else {})}
