"""What a benchmark of Grounded SAM 2 is about, and how its ways answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fgdd_bench.harness.ways import Answer, Stage
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.foreground import Foreground
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.prompts import Prompting, phrases_of, prompt_text


@dataclass(frozen=True, kw_only=True)
class GroundedSubject:
    """The model in both of its forms, and what is looked for with it: the same for every way.

    Attributes:
        bundle: the exported model, in fp32, which the product runs.
        runtime: how the product opens its engines.
        detector, segmenter: the checkpoints that it was exported from, which the references run.
        classes: of the images.
        prompts: what to look for instead of a class's name: see
            `fgdd_fast.models.prompts.read_prompts`.
        threshold: score in [0, 1] above which a box is taken; the bundle's own when None.
        resize: how images are resized, but for the published style, which has its own way.
        batch: images that the product puts into one inference.
    """

    bundle: Bundle
    runtime: Runtime
    detector: str
    segmenter: str
    classes: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    threshold: float | None = None
    resize: ResizeMethod = "area"
    batch: int = 1

    @property
    def prompting(self) -> Prompting:
        """How the bundle is asked.

        Raises:
            BundleError: it cannot be asked for a class.
        """
        return Prompting.of(self.bundle)

    @property
    def box_threshold(self) -> float:
        """The score above which a box is taken."""
        return self.prompting.threshold if self.threshold is None else self.threshold

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt of each class."""
        form = self.prompting.form
        return tuple(prompt_text(phrases_of(name, self.prompts), form) for name in self.classes)


def text_stage(images: Sequence[SourceImage], encode: Callable[[str], Any], threads: int = 1) -> Stage:
    """The stage that encodes the prompt of each class of some images once.

    Args:
        images: of the benchmark; a call covers as many as a class has, on average.
        encode: encodes the prompt of a class.
        threads: processor threads that a call keeps busy.
    """
    classes = list(dict.fromkeys(image.class_name for image in images))
    covered = -(-len(images) // len(classes))
    return Stage("text encoder", lambda index: encode(classes[index]), len(classes), covered, threads)


def as_answer(found: Sequence[Foreground], most: int) -> Answer:
    """The answer of a way: occupancies, masks and boxes.

    Args:
        found: in each image; with masks of one size.
        most: boxes that are taken of an image, at most.
    """
    boxes = np.zeros((len(found), most, 5), np.float32)
    for row, one in zip(boxes, found, strict=True):
        row[: len(one.boxes)] = np.reshape(one.boxes, (-1, 5))
    return {
        "occupancy": np.array([one.occupancy for one in found], np.float32),
        "masks": np.stack([one.mask for one in found if one.mask is not None]),
        "boxes": boxes,
    }
