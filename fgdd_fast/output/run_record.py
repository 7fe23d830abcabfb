"""The record of a run, beside the manifest: what a report shows, and the manifest does not hold.

`OUT/run.json` is UTF-8 JSON (pure ASCII) of format 1. Unlike the manifest it holds times, so no two runs
write the same one; nothing but the report reads it, and a distilled data set is whole without it.

    {"format": 1,
     "begun": UTC time as ISO 8601,
     "processor": its model, "threads": of the run,
     "seconds": {stage: seconds}, "measured": images that were measured in this run,
     "mean_full_loss": the teacher's mean cross-entropy (nats) on whole images,
     "warnings": [what the run warned of],
     "classes": {class: {"occupancies": [of each image measured, ascending],
                         "below", "above": [sources of the images whose occupancy is nearest to the
                                            threshold, on either side, ascending]}},
     "sources": {source: {"sha256", "size": [width, height], "occupancy", "loss": on the whole image, or null,
                          "outline": of the foreground, see `fgdd_fast.output.outlines`; or null}}}

`sources` has those of the tiles and of `below` and `above`. Paths are as in the manifest.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdd_fast.output.folder import RUN_RECORD, writing
from fgdd_fast.output.outlines import LETTERS, outline
from fgdd_fast.runtime.machine import read_machine
from fgdd_fast.selection.records import ImageRecord

if TYPE_CHECKING:
    from fgdd_fast.images.dataset import SourceImage
    from fgdd_fast.measurement.effort import AnyMeasurer
    from fgdd_fast.planning import ClassPlan, Plan

FORMAT = 1
NEAR = 4  # images on either side of a class's threshold
_DIGITS = 5  # of occupancies and losses


class RunLog:
    """What a run notes while it works: seconds by stage, images measured, and warnings.

    Attributes:
        begun: UTC time as ISO 8601.
        seconds: that each stage took so far.
        measured: images of which something was measured.
        warnings: lines that were logged as warnings.
    """

    def __init__(self) -> None:
        self.begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.measured = 0
        self.warnings: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin

    def warn(self, text: str) -> None:
        """Keep a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True)
class ClassRecord:
    """What was measured of a class.

    Attributes:
        occupancies: of each image, ascending, in [0, 1].
        below, above: sources of the images whose occupancy is nearest to the threshold, ascending.
    """

    occupancies: tuple[float, ...] = ()
    below: tuple[str, ...] = ()
    above: tuple[str, ...] = ()

    @property
    def near(self) -> tuple[str, ...]:
        """Sources of the images nearest to the threshold, by ascending occupancy."""
        return (*self.below, *self.above)


@dataclass(frozen=True)
class SourceRecord:
    """What was measured of an image.

    Attributes:
        sha256: hexadecimal hash of its file.
        size: width and height in pixels, upright.
        occupancy: share of it that is foreground, in [0, 1].
        loss: the teacher's cross-entropy (nats) on the whole image; None where it is not finite.
        outline: of its foreground, see `fgdd_fast.output.outlines`; None where no mask was kept.
    """

    sha256: str
    size: tuple[int, int]
    occupancy: float
    loss: float | None
    outline: str | None


@dataclass(frozen=True)
class RunRecord:
    """The record of a run; the fields mirror the JSON keys."""

    begun: str = ""
    processor: str = ""
    threads: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    measured: int = 0
    mean_full_loss: float | None = None
    warnings: tuple[str, ...] = ()
    classes: Mapping[str, ClassRecord] = field(default_factory=dict)
    sources: Mapping[str, SourceRecord] = field(default_factory=dict)


def record_run(
    log: RunLog, plan: Plan, images: Sequence[SourceImage], measurer: AnyMeasurer | None, *, threads: int
) -> RunRecord:
    """Gather the record of a run from what it noted, decided and measured.

    Args:
        log: what it noted.
        plan: what it decided.
        images: the pool.
        measurer: reads what was measured of the images; None where nothing of them is kept.
        threads: of the run.
    """
    always = not plan.settings.rule.needs_foreground
    classes = {
        part.name: ClassRecord(
            tuple(sorted(round(value, _DIGITS) for value in part.foregrounds)),
            *(((), ()) if always else _nearest(part)),
        )
        for part in plan.classes
    }
    wanted = {tile.source for _, mosaic in plan.mosaics for tile in mosaic.tiles}
    wanted |= {source for each in classes.values() for source in each.near}
    kept = [image for image in images if image.source in wanted]
    return RunRecord(
        begun=log.begun,
        processor=read_machine().processor,
        threads=threads,
        seconds={name: round(value, 3) for name, value in log.seconds.items()},
        measured=log.measured,
        mean_full_loss=_rounded(plan.mean_full_loss()),
        warnings=tuple(log.warnings),
        classes=classes,
        sources={} if measurer is None else dict(_sources(kept, measurer)),
    )


def _nearest(part: ClassPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The images of a class nearest to its threshold: those below it, and those at or above."""
    threshold = part.selection.threshold
    known = [
        (value, source)
        for source, value in part.occupancies.items()
        if value > 0 and source not in part.selection.duplicates
    ]
    below = sorted((pair for pair in known if pair[0] < threshold), key=lambda pair: (-pair[0], pair[1]))
    above = sorted(pair for pair in known if pair[0] >= threshold)
    return tuple(source for _, source in reversed(below[:NEAR])), tuple(source for _, source in above[:NEAR])


def _sources(images: Sequence[SourceImage], measurer: AnyMeasurer) -> Iterator[tuple[str, SourceRecord]]:
    for record, mask in zip(measurer.records(images), measurer.masks(images), strict=True):
        if isinstance(record, ImageRecord):
            yield (
                record.source,
                SourceRecord(
                    sha256=record.sha256,
                    size=(record.full.box.width, record.full.box.height),
                    occupancy=round(record.occupancy, _DIGITS),
                    loss=_rounded(record.full.loss),
                    outline=None if mask is None else outline(mask),
                ),
            )


def _rounded(value: float) -> float | None:
    """A number that JSON can hold."""
    return round(value, _DIGITS) if math.isfinite(value) else None


def write_run_record(record: RunRecord, folder: Path) -> None:
    """Write `run.json` into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / RUN_RECORD
    data = {"format": FORMAT, **vars(record)}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=vars)  # of each part
    with writing(path):
        path.write_bytes(f"{text}\n".encode("ascii"))


def read_run_record(folder: Path) -> RunRecord | None:
    """Read the record of the run that made a distilled data set.

    Returns:
        The record; None where there is none, or it is damaged or of another format: a data set is whole
        without it.
    """
    try:
        data = json.loads((folder / RUN_RECORD).read_bytes())
        return _record(data) if data["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None


def _record(data: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        begun=str(data["begun"]),
        processor=str(data["processor"]),
        threads=int(data["threads"]),
        seconds={str(name): _number(value) for name, value in data["seconds"].items()},
        measured=int(data["measured"]),
        mean_full_loss=None if data["mean_full_loss"] is None else _number(data["mean_full_loss"]),
        warnings=tuple(map(str, data["warnings"])),
        classes={
            name: ClassRecord(
                tuple(_number(value, 0, 1) for value in each["occupancies"]),
                tuple(map(str, each["below"])),
                tuple(map(str, each["above"])),
            )
            for name, each in data["classes"].items()
        },
        sources={name: _source_record(each) for name, each in data["sources"].items()},
    )


def _source_record(data: Mapping[str, Any]) -> SourceRecord:
    width, height = (int(side) for side in data["size"])
    path = data["outline"]
    if min(width, height) < 1 or not set(path or "") <= LETTERS:
        raise ValueError("no size, or an outline of other letters")
    return SourceRecord(
        sha256=str(data["sha256"]),
        size=(width, height),
        occupancy=_number(data["occupancy"], 0, 1),
        loss=None if data["loss"] is None else _number(data["loss"]),
        outline=path,
    )


def _number(value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    number = float(value)
    if not (math.isfinite(number) and least <= number <= most):
        raise ValueError(f"{number} is out of range")
    return number
