"""The rates of a pair of models: opened as the command line opens them, then timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import cv2

from benchmarks.studies.scale.projection import NETWORKS, Rates
from benchmarks.studies.scale.stage_rates import ImageSize, measure_rates
from fgdd_engines.backends import find_backend
from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.views import ScoreView
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher, check_classes, open_teacher
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.runtime.choose import Requested, choose_runtime
from fgdd_fast.selection.thresholds import parse_rule


@dataclass(frozen=True)
class Pair:
    """A foreground model and how the teacher is shown tiles, named as on the command line."""

    foreground: str
    score_view: ScoreView


@dataclass(frozen=True, kw_only=True)
class Options:
    """What both pairs share, named as on the command line."""

    teacher: str
    threads: int
    crops: int
    size: int
    device: Requested
    precision: Precision


@dataclass(frozen=True)
class PairRates:
    """What a pair of models takes.

    Attributes:
        models: name and hash by role, the score view, and what runs each.
        rates: of every kind of work.
        images: how large the images were.
    """

    models: Mapping[str, object]
    rates: Rates
    images: ImageSize


def rates_of(pair: Pair, options: Options, images: Sequence[SourceImage], repeats: int) -> PairRates:
    """Open a pair of models and time every kind of work.

    Args:
        pair, options: what is opened, and how.
        images: photographs, from every class.
        repeats: how often each kind of work is timed.

    Raises:
        FgddError: a model cannot be opened, or an image not be measured.
    """
    cv2.setNumThreads(1)  # as measuring does
    classes = tuple(dict.fromkeys(image.class_name for image in images))
    choice = choose_foreground(pair.foreground, classes)
    bundle = find_bundle(options.teacher, "teacher")
    check_classes(bundle, classes)
    settings = MeasureSettings(crops=options.crops, seed=0, resize="area", batch=1, threads=options.threads)
    mosaics = MosaicSettings(
        ipc=1,
        factor=2,
        size=options.size,
        rule=parse_rule("quantile:0.3"),
        seed=0,
        resize=settings.resize,
        format="png",
    )

    def runtime(bundle: Bundle) -> Runtime:
        return choose_runtime(bundle, options.device, options.precision, options.threads).runtime

    with (
        closing(
            open_foreground(choice, runtime=runtime, batch=1, resize=settings.resize, threads=options.threads)
        ) as foreground,
        closing(
            open_teacher(
                bundle,
                runtime=runtime,
                view=pair.score_view,
                tile_size=mosaics.tile_size,
                batch=VIEWS_PER_INFERENCE,
            )
        ) as teacher,
    ):
        bundles = dict(zip(NETWORKS, (choice.source, teacher.bundle), strict=True))
        on_gpu = tuple(
            network
            for network, source in bundles.items()
            if isinstance(source, Bundle) and not find_backend(runtime(source).device).on_processor
        )
        rates, size = measure_rates(
            images, foreground, teacher, settings, mosaics, on_gpu=on_gpu, repeats=repeats
        )
        return PairRates(_described(foreground, teacher, pair.score_view), rates, size)


def _described(foreground: ForegroundModel, teacher: Teacher, view: ScoreView) -> dict[str, object]:
    """Names, hashes and runtimes; a tile form stands for its teacher."""
    form = teacher.bundle.tile_of
    return {
        "foreground": {
            "name": foreground.name,
            "sha256": foreground.sha256,
            "runtime": foreground.description,
        },
        "teacher": {
            "name": teacher.bundle.name,
            "sha256": form or teacher.bundle.sha256,
            "runtime": teacher.engine.arithmetic + (", tiles" if form else ""),
        },
        "score_view": view,
    }
