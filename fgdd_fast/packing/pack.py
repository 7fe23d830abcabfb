"""Repack a distilled data set for other libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import SettingsError
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.packing.huggingface import write_huggingface
from fgdd_fast.packing.samples import Pack, Writer
from fgdd_fast.packing.webdataset import write_webdataset

FORMATS: Mapping[str, Writer] = {"webdataset": write_webdataset, "huggingface": write_huggingface}
MEGABYTE = 1_000_000
SHARD_SIZE = 500  # megabytes


def pack(
    out: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: str,
    shard_size: float = SHARD_SIZE,
    progress: Progress = SILENT,
) -> Pack:
    """Repack a distilled data set into a new folder, which appears whole or not at all.

    Its manifest goes along, and the logits of mosaics and tiles where labels are stored.

    Args:
        out: the folder of the distilled data set.
        target: the new folder; an empty one is taken.
        format: `webdataset`, tar shards; or `huggingface`, Parquet and a card for `datasets.load_dataset`.
        shard_size: megabytes of images in a shard, at most.
        progress: shows how many images are written.

    Returns:
        What was written, and in which shards.

    Raises:
        SettingsError: there is no such format.
        DataError: the data set is damaged, or its stored labels are.
        OutputError: the folder cannot be written, or is there already and not empty.
        MissingExtraError: the format's package is not installed.
    """
    if format not in FORMATS:
        raise SettingsError(f"There is no format {format!r}", f"Choose one of: {', '.join(FORMATS)}.")
    packed = Pack(open_distilled(Path(out)), int(shard_size * MEGABYTE))
    with progress.task("Packing", len(packed.distilled)) as task:
        FORMATS[format](packed, Path(target), task)
    return packed
