"""What a pipeline can be told: the settings of measuring and of deciding, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fgdd_engines.paths import cache_folder
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.images.tiles import ScoreView
from fgdd_fast.output.manifest import Setting
from fgdd_fast.output.mosaic import Format
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.selection.images_per_class import (
    ImagesPerClass,
    images_per_class_text,
    parse_bytes,
    parse_images_per_class,
)
from fgdd_fast.selection.ranking import RankingName
from fgdd_fast.selection.select import KEEP_FOREGROUND, SelectionSettings, default_keep_foreground
from fgdd_fast.selection.thresholds import Rule, parse_rule

Effort: TypeAlias = Literal["exact", "decide"]
"""At how many images a foreground model looks."""

DEFAULT_FOREGROUND = "saliency-u2netp"  # where a rule asks for a foreground, and none is named
FOREGROUND_RULE = "quantile:0.3"  # where a foreground is named, and no rule
WHOLE_RULE = "always-full"  # where neither is: no rule has been shown to beat it, see docs/results
NO_FOREGROUND = "none"

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"rule": WHOLE_RULE, "ranking": "loss"},
    "foreground": {"rule": FOREGROUND_RULE, "ranking": "loss", "keep_foreground": KEEP_FOREGROUND},
    "fast": {
        "rule": FOREGROUND_RULE,
        "ranking": "loss",
        "keep_foreground": KEEP_FOREGROUND,
        "foreground": f"{DEFAULT_FOREGROUND}-192",
    },
    "paper": {"rule": FOREGROUND_RULE, "ranking": "loss", "keep_foreground": 0.0, "score_view": "pad"},
    "rded": {
        "rule": "always-patch",
        "ranking": "loss",
        "keep_foreground": 0.0,
        "score_view": "pad",
        "resize": "pil",
    },
}
"""Settings that go together, by name: `distill(..., **PRESETS["paper"])`.

`whole`, the default, keeps all images whole; `foreground` is the dual path, whose crops keep most of the
foreground; `fast` is that with a foreground that is looked for on a smaller canvas; `paper` is the method as
its paper has it ("Foreground-Aware Dataset Distillation via Dynamic Patch Selection", arXiv 2601.02727);
`rded` is the method that it builds on (RDED, Sun et al., CVPR 2024), without a foreground, resized as Pillow
does.
"""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured of a data set, and with which models.

    Attributes:
        teacher: the bundle of a teacher that knows every class: a path, or a name of the catalogue.
        foreground: the foreground model: a name of the catalogue, a bundle's path, `masks:FOLDER`, or
            `none`, to which all of an image is foreground. By default `saliency-u2netp` where the rule that
            decides asks for a foreground, and otherwise `none`.
        foreground_effort: `exact` lets it look at every image; `decide` a quick model of its family, and
            it where a plan depends on it.
        prompts: a file of what to look for in each class, for a foreground model that is asked by name.
        box_threshold: score in [0, 1] above which such a model takes a box; the bundle's own by default.
        pool: images considered of each class; None for all.
        crops: candidate crops of each image, at least 1.
        size: side of a mosaic in pixels.
        factor: tiles along each side of a mosaic.
        score_view: how the teacher is shown a tile; `pad`, or `resize` for small tiles, by default.
        resize: how images are resized.
        sixteen_bit: how images of 16 bits are read: `shift` takes the upper 8; `scale` the upper 8 of those
            that the image uses, for pictures of 10, 12 or 14 bits.
        seed: of the pool and of the candidate crops, at least 0.
        store: the folder that keeps what was measured; one in the cache folder by default.
    """

    teacher: str | Path | None = None
    foreground: str | Path | None = None
    foreground_effort: Effort = "exact"
    prompts: str | Path | None = None
    box_threshold: float | None = None
    pool: int | None = 300
    crops: int = 5
    size: int = 224
    factor: int = 2
    score_view: ScoreView | None = None
    resize: ResizeMethod = "area"
    sixteen_bit: SixteenBit = "shift"
    seed: int = 0
    store: str | Path = field(default_factory=lambda: cache_folder() / "store")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Which tiles are to represent each class.

    Attributes:
        ipc: images (mosaics) per class, at least 1: a number, numbers by class, or a text of both such as
            `10,dress=5`, where 10 is for all others; or a text such as `5MB`: as many as their files may have
            bytes altogether.
        rule: which images are kept whole, such as `quantile:0.3`, which is the default where a foreground
            model is named; otherwise all are (`always-full`).
        ranking: which tiles of a class are taken.
        keep_foreground: share of their image's foreground in [0, 1] that crops are to keep; by default 0.7,
            or 0 for a rule that is RDED.
        least_area: share of their image in [0, 1] that crops are to cover.
        near_duplicates: bits of 64 by which perceptual hashes of images that are nearly the same differ at
            most; of such images one is considered. None considers all.
        format: of the mosaics' files.
    """

    ipc: ImagesPerClass = 10
    rule: Rule | str | None = None
    ranking: RankingName = "loss"
    keep_foreground: float | None = None
    least_area: float = 0.0
    near_duplicates: int | None = None
    format: Format = "png"

    def settings(self, options: MeasureOptions) -> MosaicSettings:
        """Return the settings of mosaics whose tiles were measured with these options.

        Raises:
            SettingsError: there is no such rule, or the settings do not go together.
        """
        named = options.foreground not in (None, NO_FOREGROUND)
        rule = self.rule or (FOREGROUND_RULE if named else WHOLE_RULE)
        rule = parse_rule(rule) if isinstance(rule, str) else rule
        keep = default_keep_foreground(rule) if self.keep_foreground is None else self.keep_foreground
        ipc, ipc_by_class = parse_images_per_class(self.ipc)
        return MosaicSettings(
            ipc=ipc,
            ipc_by_class=ipc_by_class,
            factor=options.factor,
            size=options.size,
            rule=rule,
            seed=options.seed,
            resize=options.resize,
            format=self.format,
            selection=SelectionSettings(self.ranking, keep, self.least_area, self.near_duplicates),
            sixteen_bit=options.sixteen_bit,
            most_bytes=parse_bytes(self.ipc),
        )


def foreground_for(settings: MosaicSettings) -> str:
    """Return the foreground model that is taken where none is named."""
    return DEFAULT_FOREGROUND if settings.needs_foreground else NO_FOREGROUND


def stored_settings(
    settings: MosaicSettings,
    options: MeasureOptions,
    *,
    box_threshold: float | None,
    score_view: ScoreView,
    batch: int,
    foreground_batch: int,
) -> dict[str, Setting]:
    """Return every setting that a result depends on, named as on the command line.

    Limits, and the effort, are among them only where they are not the plainest.

    Args:
        settings: of the plan.
        options: of measuring.
        box_threshold, score_view: as they were in the end.
        batch: images whose views the teacher scores in one inference.
        foreground_batch: images an inference of the foreground model; named only where it is another.
    """
    selection = settings.selection
    asked: dict[str, Setting] = {}
    if options.foreground_effort != "exact":
        asked["foreground_effort"] = options.foreground_effort
    if box_threshold is not None:
        asked["box_threshold"] = box_threshold
    if foreground_batch != batch:
        asked["foreground_batch"] = foreground_batch
    if selection.keep_foreground:
        asked["keep_foreground"] = selection.keep_foreground
    if selection.least_area:
        asked["least_area"] = selection.least_area
    if selection.near_duplicates is not None:
        asked["near_duplicates"] = selection.near_duplicates
    if settings.sixteen_bit != "shift":
        asked["sixteen_bit"] = settings.sixteen_bit
    return {
        "ipc": images_per_class_text(settings.ipc, settings.ipc_by_class),
        "factor": settings.factor,
        "size": settings.size,
        "rule": str(settings.rule),
        "ranking": selection.ranking,
        "crops": options.crops,
        "pool": "all" if options.pool is None else options.pool,
        "score_view": score_view,
        "resize": settings.resize,
        "seed": settings.seed,
        "batch": batch,
        "format": settings.format,
        **asked,
    }
