"""How far two foreground models agree on the same images, of which one usually is the truth: `masks:FOLDER`.

    compared = compare_foregrounds("DATA", "masks:MASKS", foreground="saliency-u2netp")
    compared.overall.mean_error

What is compared is what decisions depend on: occupancies, their order within a class, and the path that a
rule gives each image; and the masks. What either model finds is kept in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.cluster.connecting import workers_for
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool, scan
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.factory import choose_foreground, find_family, open_foreground
from fgdd_fast.models.foreground import ForegroundChoice, ForegroundModel, Pixels
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.options import DEFAULT_FOREGROUND, FOREGROUND_RULE, MeasureOptions
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of
from fgdd_fast.runtime.tolerances import rank_correlation
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.thresholds import Rule, decide, parse_rule

_LIMIT = 127  # of a mask's 0 to 255, above which a pixel is foreground
_REASONS = 3  # in an error message


@dataclass(frozen=True)
class Agreement:
    """How the foregrounds that one model finds agree with those that are expected.

    Attributes:
        images: how many were compared.
        mean_error, largest_error: absolute difference of occupancies, as a share of the image.
        bias: mean of the occupancy found less the one expected; above 0 where too much is found.
        iou: intersection over union of the masks, the mean over `masks` images; None where there are none.
        masks: images in which a foreground is expected, and of which both masks are kept.
        rank_correlation: Spearman's, of the occupancies within a class; over several classes the mean, each
            with the weight of its images. None where no class has two images.
        path_agreement: share of images that the rule keeps whole, or not, by either model's occupancies.
        nothing_found: images in which nothing is found.
        nothing_expected: images in which nothing is expected.
        nothing_in_either: images of which one or both of these hold.
    """

    images: int
    mean_error: float
    largest_error: float
    bias: float
    iou: float | None
    masks: int
    rank_correlation: float | None
    path_agreement: float
    nothing_found: int
    nothing_expected: int
    nothing_in_either: int


@dataclass(frozen=True)
class ForegroundComparison:
    """What `compare_foregrounds` found.

    Attributes:
        foreground, against: names of the model that is judged and of what it is held against.
        runtimes: what ran the two, in this order.
        rule: by which paths are compared.
        classes: the agreement within each class that has images.
        overall: the agreement over all images.
        skipped: images that could not be compared, with the reason, in the order of their names.
    """

    foreground: str
    against: str
    runtimes: tuple[str, str]
    rule: Rule
    classes: Mapping[str, Agreement]
    overall: Agreement
    skipped: tuple[Skipped, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "foreground": self.foreground,
            "against": self.against,
            "runtimes": list(self.runtimes),
            "rule": str(self.rule),
            "all": asdict(self.overall),
            "classes": {name: asdict(agreement) for name, agreement in self.classes.items()},
            "skipped": [asdict(item) for item in self.skipped],
        }


def compare_foregrounds(
    data: str | Path | DataSet,
    against: str,
    *,
    rule: Rule | str = FOREGROUND_RULE,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
    **measuring: Any,
) -> ForegroundComparison:
    """Measure the foregrounds of a folder's images with two models, where they are not known, and compare.

    Args:
        data: a folder with one folder of images for each class, or one that was scanned.
        against: what is expected: usually true masks (`masks:FOLDER`), or else any foreground model.
        rule: by which paths are compared.
        runtime: how the models run.
        progress: told how far measuring is.
        measuring: `foreground`, which is judged, `pool`, `store` and other attributes of
            `fgdd_fast.options.MeasureOptions`. No teacher is needed. `prompts` and `box_threshold` hold for
            either model, if it is asked for classes by their names.

    Returns:
        The agreement of each class, and of all. Images that either model skips are left out.

    Raises:
        DataError: no image can be compared.
        FgddError: the folder, a model or the store cannot be used; what was measured until then is kept.
    """
    options, runtime = MeasureOptions(**measuring), runtime or RuntimeOptions()
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    dataset = data if isinstance(data, DataSet) else scan(Path(data))
    skipped: list[Skipped] = list(dataset.skipped)
    images: Sequence[SourceImage] = pool(dataset, options.pool, options.seed)
    with _opened(dataset, options, against, runtime) as ((one, found), (other, expected)):
        images = _measured(images, expected, skipped, progress)
        images = _measured(images, found, skipped, progress)
        members: dict[str, list[_Pair]] = {}
        for pair in _pairs(images, found, expected, skipped):
            members.setdefault(pair.found.class_name, []).append(pair)
    if not members:
        raise _nothing_to_compare(dataset, skipped)
    classes = {
        name: _agreement(members[name], rule, options.seed) for name in dataset.classes if name in members
    }
    skipped.sort(key=lambda item: item.source)
    return ForegroundComparison(
        one.name,
        other.name,
        (one.description, other.description),
        rule,
        classes,
        _over_all(list(classes.values())),
        tuple(skipped),
    )


@contextmanager
def _opened(
    dataset: DataSet, options: MeasureOptions, against: str, runtime: RuntimeOptions
) -> Iterator[list[tuple[ForegroundModel, Measurer]]]:
    """Open the model that is judged and the other, and what measures with them."""
    with ExitStack() as stack:
        store = stack.enter_context(Store(Path(options.store)))
        models = list[tuple[ForegroundModel, Measurer]]()
        choices = _choose(options, against, dataset.classes)
        cluster, runtime = stack.enter_context(workers_for(runtime, [choice.source for choice in choices]))
        chosen = partial(runtime_of, options=runtime)
        for choice in choices:
            batch = batch_of(choice.source, runtime)
            model = open_foreground(
                choice,
                runtime=chosen,
                batch=batch,
                resize=options.resize,
                threads=runtime.threads,
            )
            stack.enter_context(closing(model))
            settings = MeasureSettings(
                options.crops,
                options.seed,
                options.resize,
                batch,
                runtime.threads,
                sixteen_bit=options.sixteen_bit,
            )
            models.append((model, Measurer(model, None, settings, store, dataset.classes, cluster)))
        yield models


def _choose(options: MeasureOptions, against: str, classes: Sequence[str]) -> tuple[ForegroundChoice, ...]:
    """The model that is judged and the other, each asked as the options say if it is asked by class."""
    names = (str(options.foreground or DEFAULT_FOREGROUND), against)
    asked = [find_family(name).asked_by_class for name in names]
    if not any(asked):
        asked[0] = True  # which refuses the options, if there are any
    prompts = None if options.prompts is None else read_prompts(Path(options.prompts))
    return tuple(
        choose_foreground(name, classes, prompts=prompts, box_threshold=options.box_threshold)
        if by_class
        else choose_foreground(name, classes)
        for name, by_class in zip(names, asked, strict=True)
    )


def _measured(
    images: Sequence[SourceImage], measurer: Measurer, skipped: list[Skipped], progress: Progress
) -> Sequence[SourceImage]:
    """Measure images, and return those that can be used: a network does not look at what has no mask."""
    left_out = measurer.measure(images, progress=progress).skipped
    skipped += left_out
    names = {item.source for item in left_out}
    return [image for image in images if image.source not in names]


@dataclass(frozen=True)
class _Pair:
    """What either model says of an image, and the overlap of their masks, where both are kept."""

    found: ImageRecord
    expected: ImageRecord
    overlap: float | None


def _pairs(
    images: Sequence[SourceImage], found: Measurer, expected: Measurer, skipped: list[Skipped]
) -> Iterator[_Pair]:
    """Compare the masks of all images; one that changed since it was measured is `skipped`."""
    records = zip(found.records(images), expected.records(images), strict=True)
    masks = zip(found.masks(images), expected.masks(images), strict=True)
    for (one, other), (mask, truth) in zip(records, masks, strict=True):
        if isinstance(one, Skipped):
            skipped.append(one)
        elif isinstance(other, Skipped):
            skipped.append(other)
        else:
            yield _Pair(one, other, None if mask is None or truth is None else mask_overlap(mask, truth))


def mask_overlap(one: Pixels, other: Pixels) -> float:
    """Return the intersection over union of two masks of an image, each uint8 [height, width], 0 to 255.

    They may differ in size: each is brought to the larger height and width of both. Where neither has a
    foreground, the overlap is 0.
    """
    height, width = np.maximum(one.shape, other.shape)
    here, there = (
        cv2.resize(mask, (int(width), int(height)), interpolation=cv2.INTER_LINEAR) > _LIMIT
        for mask in (one, other)
    )
    union = int((here | there).sum())
    return int((here & there).sum()) / union if union else 0.0


def _agreement(pairs: Sequence[_Pair], rule: Rule, seed: int) -> Agreement:
    """The agreement within one class."""
    found, expected = ([getattr(pair, side) for pair in pairs] for side in ("found", "expected"))
    one, other = (np.array([record.occupancy for record in side]) for side in (found, expected))
    errors = one - other
    kinds, wanted = (decide(rule, side, seed).kinds for side in (found, expected))
    overlaps = [pair.overlap for pair in pairs if pair.overlap is not None and pair.expected.occupancy > 0]
    return Agreement(
        images=len(pairs),
        mean_error=float(np.abs(errors).mean()),
        largest_error=float(np.abs(errors).max()),
        bias=float(errors.mean()),
        iou=float(np.mean(overlaps)) if overlaps else None,
        masks=len(overlaps),
        rank_correlation=rank_correlation(other.astype(np.float32), one.astype(np.float32))
        if len(pairs) > 1
        else None,
        path_agreement=float(np.mean([a == b for a, b in zip(kinds, wanted, strict=True)])),
        nothing_found=int((one == 0).sum()),
        nothing_expected=int((other == 0).sum()),
        nothing_in_either=int(((one == 0) | (other == 0)).sum()),
    )


def _over_all(classes: Sequence[Agreement]) -> Agreement:
    """The agreement over all images of the classes, each of which has an image."""

    def mean(name: str, weight: str = "images") -> float | None:
        known = [(getattr(each, name), getattr(each, weight)) for each in classes]
        values = [(value, count) for value, count in known if value is not None]
        total = sum(count for _, count in values)
        return sum(value * count for value, count in values) / total if total else None

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in classes)

    return Agreement(
        images=total("images"),
        mean_error=mean("mean_error") or 0.0,
        largest_error=max(each.largest_error for each in classes),
        bias=mean("bias") or 0.0,
        iou=mean("iou", "masks"),
        masks=total("masks"),
        rank_correlation=mean("rank_correlation"),
        path_agreement=mean("path_agreement") or 0.0,
        nothing_found=total("nothing_found"),
        nothing_expected=total("nothing_expected"),
        nothing_in_either=total("nothing_in_either"),
    )


def _nothing_to_compare(dataset: DataSet, skipped: Sequence[Skipped]) -> DataError:
    reasons = Counter(item.reason for item in skipped).most_common(_REASONS)
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return DataError(
        f"No image of {dataset.given} can be compared" + (f": {counted}" if counted else ""),
        "Name masks of these images: MASKS/cat/1.png is the mask of DATA/cat/1.jpg.",
    )
