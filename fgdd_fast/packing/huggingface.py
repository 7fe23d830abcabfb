"""A distilled data set as a folder for Hugging Face's `datasets`: Parquet files and a data set card.

    TARGET/README.md                             the card
    TARGET/data/train-00000-of-00001.parquet

`datasets.load_dataset("TARGET", split="train")` gives the columns that the card describes. The schema's
metadata names the two features that Arrow's types do not tell, `Image` and `ClassLabel`, as `datasets` itself
writes them (`Features.arrow_schema`).
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from fgdd_engines.optional_imports import import_optional
from fgdd_engines.progress import Task
from fgdd_fast.errors import DataError
from fgdd_fast.output.folder import writing
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.packing.samples import Pack, Sample, packed_folder

ROWS = 100  # of a row group: a viewer of images reads a whole one
LOGITS = """\
| `logits` | the teacher's logits of the mosaic, float16, in the order of the classes |
| `tile_logits` | the teacher's logits of each tile |
"""
CARD = """\
---
license: unknown
task_categories:
- image-classification
tags:
- dataset-distillation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# A distilled data set

{images} images of {classes} classes, distilled from {photographs} photographs by fgdd-fast {version}. Each is
a mosaic of {factor} x {factor} tiles, and each tile a photograph or a part of one.

| column | what |
|---|---|
| `image` | the mosaic, {size} x {size} pixels, RGB |
| `label` | its class |
| `file` | its file's path in the distilled data set |
| `tiles` | its tiles, row by row |
{logits}
Of each tile, `source` and `sha256` are those of the photograph; `box` is the part taken of it (x, y, width,
height in pixels); `path` is `full` where it was kept whole and `crop` where not; `occupancy` is the share of
the photograph that its foreground covers, and `threshold` the one from which on it was kept whole; `loss` is
the teacher's cross-entropy in nats.

## Provenance and licence

The images are parts of photographs, and under the licence of these photographs, which fgdd-fast does not
know: state it here, and as `license` above, before you publish them. `tiles` says what each tile is a part
of, and `manifest.json` how it was chosen, with these models:

| model | name | SHA-256 |
|---|---|---|
{models}
"""


def write_huggingface(pack: Pack, target: Path, task: Task) -> None:
    """Write a folder for `datasets`, which appears whole or not at all.

    Bytes of names that are no UTF-8 stand as `\\xNN`.

    Args:
        pack: the samples and their shards.
        target: the folder.
        task: shows how many samples are written.

    Raises:
        OutputError: the folder cannot be written, or is there already and not empty.
        DataError: an image is damaged, or two classes have the same name.
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = (import_optional(name, "pack") for name in ("pyarrow", "pyarrow.parquet"))
    manifest = pack.distilled.manifest
    schema = _schema(arrow, class_names(manifest), soft=pack.soft)
    with packed_folder(pack, target) as folder, writing(target):
        (folder / "README.md").write_text(card(pack), encoding="utf-8")
        (folder / "data").mkdir()
        for number, places in enumerate(pack.shards):
            path = folder / "data" / f"train-{number:05d}-of-{len(pack.shards):05d}.parquet"
            with parquet.ParquetWriter(path, schema) as writer:
                for start in range(places.start, places.stop, ROWS):
                    rows = [_row(pack.sample(place)) for place in places[start - places.start :][:ROWS]]
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
                    task.advance(len(rows))


def class_names(manifest: Manifest) -> list[str]:
    """Return the classes in the order of their labels, as valid text.

    Raises:
        DataError: two of them have the same text.
    """
    names = [_readable(name) for name in manifest.classes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"Two classes are named {twice[0]!r} once bytes that are no UTF-8 are written out",
            "Rename the folder of one of them, and distil again.",
        )
    return names


def card(pack: Pack) -> str:
    """Return the data set card: Markdown, with a head that tells `datasets` which files are data."""
    manifest = pack.distilled.manifest
    return CARD.format(
        images=len(pack.distilled),
        classes=len(manifest.classes),
        photographs=manifest.image_count,
        version=_cell(manifest.tool.get("fgdd-fast", "")),
        size=pack.distilled.size,
        factor=pack.distilled.factor,
        logits=LOGITS if pack.soft else "",
        models="\n".join(
            f"| {role} | {_cell(model.name)} | `{model.sha256}` |" for role, model in manifest.models.items()
        ),
    )


def _schema(arrow: ModuleType, classes: list[str], *, soft: bool) -> Any:
    tile = {
        "source": arrow.string(),
        "sha256": arrow.string(),
        "box": arrow.list_(arrow.int32()),
        "path": arrow.string(),
        "occupancy": arrow.float64(),
        "threshold": arrow.float64(),
        "loss": arrow.float64(),
    }
    columns = {
        "image": arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}),
        "label": arrow.int64(),
        "file": arrow.string(),
        "tiles": arrow.list_(arrow.struct(tile)),
    }
    if soft:
        logits = arrow.list_(arrow.float16())
        columns |= {"logits": logits, "tile_logits": arrow.list_(logits)}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
    return arrow.schema(columns).with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _row(sample: Sample) -> dict[str, Any]:
    """A sample's values, column by column."""
    file = _readable(sample.entry["file"])
    row = {
        "image": {"bytes": sample.content, "path": PurePosixPath(file).name},
        "label": sample.label,
        "file": file,
        "tiles": [{**tile, "source": _readable(tile["source"])} for tile in sample.entry["tiles"]],
    }
    if sample.logits is not None:
        row |= {"logits": sample.logits.mosaic, "tile_logits": list(sample.logits.tiles)}
    return row


def _readable(text: str) -> str:
    """Text without lone surrogates: bytes that are no UTF-8 are written out, as in `caf\\xe9`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    """Text for a line or a cell of a Markdown table, of which nothing is read as Markdown or HTML."""
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(_readable(text), quote=False))
    return " ".join(escaped.split())
