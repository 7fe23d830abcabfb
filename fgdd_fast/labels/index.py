"""`OUT/labels/labels.json`: what the stored labels are of, who gave them, and which files they are in.

It is UTF-8 JSON (pure ASCII) of format 1:

    {"format": 1,
     "manifest": SHA-256 of OUT/manifest.json,
     "images": [SHA-256 of each image's file, in the order of the manifest],
     "classes": [names, in the order of the columns of all logits],
     "teacher": {"name", "sha256": of its fp32 graph, "other": whether it is not the manifest's teacher},
     "runtime": {"model", "runtime", "size", "batch": all of the teacher's inference that a logit depends on},
     "tile_view": how tiles are shown to the teacher: "pad" | "resize" | "native",
     "views": {"size", "factor", "batch", "seed", "cutmix": how training views are drawn,
               "shown": "resize" | "native", "compression": "float16" | "int8" | "top:K"},
     "epochs": number of epochs wanted,
     "files": {name: {"sha256", "bytes",
                      "divergence", "information", "agreement": what keeping its logits so costs}}}

`views` is null where no epoch is wanted. Hashes are hexadecimal. A file is listed once it is on disk, whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.bundle.schema import (
    SHA256,
    array,
    flag,
    free,
    number,
    one_of,
    or_null,
    read_json,
    record,
    string,
    table,
    whole,
)
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView
from fgdd_fast.labels.compression import Compression, Cost, parse_compression
from fgdd_fast.labels.training_views import LARGEST_SIDE, ViewRecipe
from fgdd_fast.output.manifest import Model

FORMAT = 1
LABEL_AGAIN = "Label again: fgdd-fast label OUT --teacher BUNDLE --overwrite"
IMAGE_FILE = "images.safetensors"
_FILE_NAME = r"images\.safetensors|epoch-[0-9]{5}\.safetensors"
_VIEWS = {str(view): view for view in SCORE_VIEWS}
MOST_EPOCHS = 100_000  # their files are numbered by five digits


def is_label_file(name: str) -> bool:
    """Return whether a file of labels can have this name."""
    return re.fullmatch(_FILE_NAME, name) is not None


def epoch_file(epoch: int) -> str:
    """Return the name of an epoch's file."""
    return f"epoch-{epoch:05d}.safetensors"


@dataclass(frozen=True)
class LabelSubject:
    """What labels are of, who gave them, and how.

    Attributes:
        manifest: SHA-256 of the manifest.
        images: SHA-256 of each image's file, in the order of the manifest.
        classes: of the columns.
        teacher: its name, and the SHA-256 of its fp32 graph, whatever precision ran.
        other_teacher: whether it is not the one that the manifest names.
        runtime: all of the teacher's inference that a logit depends on.
        tile_view: how a tile is shown to it.
    """

    manifest: str
    images: tuple[str, ...]
    classes: tuple[str, ...]
    teacher: Model
    other_teacher: bool
    runtime: Mapping[str, str]
    tile_view: ScoreView


@dataclass(frozen=True)
class LabelledViews:
    """Which training views are labelled, and how their logits are kept.

    Attributes:
        recipe: how they are drawn.
        shown: how a view is shown to the teacher: `resize` to its input, or `native`, as it is.
        compression: of the logits.
    """

    recipe: ViewRecipe
    shown: ScoreView
    compression: Compression


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes:
        sha256: of its bytes.
        size: in bytes.
        cost: of keeping its logits as they are kept.
    """

    sha256: str
    size: int
    cost: Cost


@dataclass(frozen=True)
class LabelIndex:
    """Stored labels: the fields mirror `labels.json`.

    Attributes:
        subject: what they are of.
        views: the training views; None where no epoch is wanted.
        epochs: epochs wanted.
        files: those that are on disk, by name.
    """

    subject: LabelSubject
    views: LabelledViews | None
    epochs: int
    files: Mapping[str, LabelFile] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[int, ...]:
        """The epochs wanted that are not on disk."""
        return tuple(epoch for epoch in range(self.epochs) if epoch_file(epoch) not in self.files)

    @property
    def lacks_images(self) -> bool:
        """Whether the labels of whole images and tiles are not on disk."""
        return IMAGE_FILE not in self.files

    @property
    def epoch_bytes(self) -> float:
        """The mean bytes of an epoch's file; 0 where there is none."""
        sizes = [self.files[epoch_file(epoch)].size for epoch in range(self.epochs)]
        return sum(sizes) / max(len(sizes), 1)

    @property
    def epoch_cost(self) -> Cost | None:
        """The mean cost of keeping an epoch's logits as they are kept; None where there is no epoch."""
        costs = [self.files[epoch_file(epoch)].cost for epoch in range(self.epochs)]
        return Cost(*np.mean([astuple(cost) for cost in costs], axis=0).tolist()) if costs else None

    def with_file(self, name: str, file: LabelFile) -> LabelIndex:
        """Return the index with one more file."""
        return replace(self, files={**self.files, name: file})


def serialise(index: LabelIndex) -> bytes:
    """Return the JSON of an index; equal indices give equal bytes."""
    subject, views = index.subject, index.views
    data = {
        "format": FORMAT,
        "manifest": subject.manifest,
        "images": subject.images,
        "classes": subject.classes,
        "teacher": {
            "name": subject.teacher.name,
            "sha256": subject.teacher.sha256,
            "other": subject.other_teacher,
        },
        "runtime": dict(subject.runtime),
        "tile_view": subject.tile_view,
        "views": None
        if views is None
        else {**asdict(views.recipe), "shown": views.shown, "compression": str(views.compression)},
        "epochs": index.epochs,
        "files": {
            name: {"sha256": file.sha256, "bytes": file.size, **asdict(file.cost)}
            for name, file in sorted(index.files.items())
        },
    }
    return (json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


_COST = {"divergence": number(), "information": number(), "agreement": number()}
_INDEX = record(
    {
        "manifest": SHA256,
        "images": array(SHA256),
        "classes": array(string()),
        "teacher": record({"name": string(), "sha256": SHA256, "other": flag}),
        "runtime": table(string()),
        "tile_view": one_of(*map(str, SCORE_VIEWS)),
        "views": or_null(
            record(
                {
                    "size": whole(1, LARGEST_SIDE),
                    "factor": whole(1, LARGEST_SIDE),
                    "batch": whole(1),
                    "seed": whole(0, 2**63 - 1),
                    "cutmix": flag,
                    "shown": one_of(*map(str, SCORE_VIEWS)),
                    "compression": string(),
                }
            )
        ),
        "epochs": whole(0, MOST_EPOCHS),
        "files": table(
            record({"sha256": SHA256, "bytes": whole(), **_COST}),
            string(_FILE_NAME, what="that of a file of labels"),
        ),
    }
)


def read_index(path: Path) -> LabelIndex:
    """Read `labels.json`.

    Raises:
        DataError: it is missing, damaged, or of another format.
    """
    try:
        data = read_json(path.read_bytes(), free)
        if data["format"] != FORMAT:
            raise DataError(
                f"{path} has format {data['format']}, and this version reads format {FORMAT}", LABEL_AGAIN
            )
        _INDEX(data, "")
        files = {name: _file(row) for name, row in data["files"].items()}
        return LabelIndex(_subject(data), _views(data["views"]), data["epochs"], files)
    except FileNotFoundError as error:
        raise DataError(
            f"There are no stored labels: {path} is missing",
            "Make them: fgdd-fast label OUT --teacher BUNDLE",
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise DataError(f"{path} is no description of labels: {error}", LABEL_AGAIN) from error


def _subject(data: dict[str, Any]) -> LabelSubject:
    teacher, classes = data["teacher"], tuple(data["classes"])
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice")
    return LabelSubject(
        manifest=data["manifest"],
        images=tuple(data["images"]),
        classes=classes,
        teacher=Model(teacher["name"], teacher["sha256"]),
        other_teacher=teacher["other"],
        runtime=data["runtime"],
        tile_view=_VIEWS[data["tile_view"]],
    )


def _views(data: dict[str, Any] | None) -> LabelledViews | None:
    if data is None:
        return None
    recipe = ViewRecipe(**{name: data[name] for name in ("size", "factor", "batch", "seed", "cutmix")})
    return LabelledViews(recipe, _VIEWS[data["shown"]], parse_compression(data["compression"]))


def _file(data: dict[str, Any]) -> LabelFile:
    return LabelFile(data["sha256"], data["bytes"], Cost(*(float(data[name]) for name in _COST)))
