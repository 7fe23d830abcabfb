"""Images as every way takes them: the same candidate crops, and one error for what cannot be used."""

from __future__ import annotations

from fgdd_bench.harness.ways import Task
from fgdd_fast.errors import DataError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage


def whole_and_crops(image: SourceImage, width: int, height: int, task: Task) -> tuple[Box, ...]:
    """The boxes of an image of that many pixels: the whole of it, then its candidate crops."""
    crops = candidate_boxes(image.source, width, height, count=task.crops, seed=task.seed)
    return (Box(0, 0, width, height), *crops)


def unusable(source: str, reason: str) -> DataError:
    """The error of an image that a way cannot use: one that is skipped would make all rates wrong."""
    return DataError(f"The image {source} cannot be used: {reason}", "Take it out of the data set.")
