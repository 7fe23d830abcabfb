"""The images of a benchmark, and mosaics to compose of them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fgdd_bench.harness.sources import whole_and_crops
from fgdd_bench.harness.subject import Composition
from fgdd_bench.harness.ways import Task
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool
from fgdd_fast.images.decode import read_image
from fgdd_fast.measurement.store_format import KnownFile
from fgdd_fast.output.mosaic import arrange
from fgdd_fast.planning import ClassPlan, MosaicSettings, Plan
from fgdd_fast.runtime.sample_images import in_turn
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.select import select
from fgdd_fast.selection.thresholds import parse_rule

RULE = "quantile:0.3"


@dataclass(frozen=True)
class Original:
    """An image that every way is given.

    Attributes:
        image: where it is.
        file: hash and size of what is there.
    """

    image: SourceImage
    file: KnownFile


def choose_originals(dataset: DataSet, count: int, seed: int) -> tuple[list[Original], list[Skipped]]:
    """Take images from all classes in turn, and read each once, which brings its file into memory.

    Args:
        dataset: the folder as scanned.
        count: images, at most.
        seed: which images of each class.

    Returns:
        (the images, those that cannot be used with the reason).

    Raises:
        DataError: no image can be used.
    """
    originals: list[Original] = []
    skipped: list[Skipped] = []
    first = pool(dataset, -(-count // len(dataset.classes)), seed)
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
        raise DataError(
            f"No image in {dataset.root} can be used", f"The first, {skipped[0].source}: {skipped[0].reason}."
        )
    return originals, skipped


def mosaic_settings(originals: Sequence[Original], task: Task, size: int) -> MosaicSettings:
    """As many mosaics of each class as its fewest images fill, at least one.

    Raises:
        SettingsError: the mosaics cannot be cut into equal tiles.
    """
    counts: defaultdict[str, int] = defaultdict(int)
    for original in originals:
        counts[original.image.class_name] += 1
    ipc = max(min(counts.values()) // task.factor**2, 1)
    rule = parse_rule(RULE)
    return MosaicSettings(ipc, task.factor, size, rule, task.seed, resize="area", format="png")


def draw_composition(originals: Sequence[Original], task: Task, size: int) -> Composition:
    """Mosaics of tiles that are chosen by drawn occupancies and losses: composing needs no model.

    Raises:
        DataError: a class has too few images.
        SettingsError: the mosaics cannot be cut into equal tiles.
    """
    records = []
    for original in originals:
        drawn = [byte / 255 for byte in seeded_hash("fgdd bench", task.seed, original.image.source).digest()]
        losses = itertools.islice(itertools.cycle(drawn[1:]), 1 + task.crops)
        records.append(record_of(original, drawn[0], list(losses), task))
    return compose_plan(records, mosaic_settings(originals, task, size))


def compose_plan(records: Sequence[ImageRecord], settings: MosaicSettings) -> Composition:
    """The mosaics that follow from what was measured.

    Raises:
        DataError: a class has too few images.
    """
    classes: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        classes[record.class_name].append(record)
    plans = []
    for name, members in sorted(classes.items()):
        selection = select(members, settings.rule, settings.tiles_per_class, settings.seed)
        occupancies = {record.source: record.occupancy for record in members}
        losses = tuple(record.full.loss for record in members)
        mosaics = arrange(selection.tiles, settings.ipc, settings.factor)
        plans.append(ClassPlan(name, occupancies, losses, selection, mosaics))
    return Composition(Plan(settings, tuple(plans), ()), settings)


def record_of(original: Original, occupancy: float, losses: Iterable[float], task: Task) -> ImageRecord:
    """What the decisions need to know of an image.

    Args:
        original: the image.
        occupancy: of its foreground.
        losses: nats: of the whole image, then of each of its candidate crops.
        task: says which crops these are.
    """
    image, file = original.image, original.file
    boxes = whole_and_crops(image, file.width, file.height, task)
    full, *crops = (View(box, float(loss)) for box, loss in zip(boxes, losses, strict=True))
    return ImageRecord(image.source, file.sha256, image.class_name, occupancy, full, tuple(crops))
