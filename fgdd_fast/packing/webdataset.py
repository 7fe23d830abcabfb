"""A distilled data set as WebDataset shards: tar files that are read from first to last.

    TARGET/distilled-000000.tar    000000.png, 000000.cls, 000000.json, 000001.png, ...

| file | what |
|---|---|
| `KEY.png`, `KEY.jpg` | the mosaic |
| `KEY.cls` | its class: an index into `dataset.classes` of manifest.json |
| `KEY.json` | what the manifest says of it |
| `KEY.logits.npy` | with stored labels: the teacher's logits, float16 [classes] |
| `KEY.tiles.npy` | with stored labels: those of each tile, row by row, float16 [factor * factor, classes] |

A key is the sample's place in the order: class names may hold dots, at which WebDataset would end the key.
Source: the conventions of the public repository webdataset/webdataset.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgdd_engines.base import Array
from fgdd_engines.progress import Task
from fgdd_fast.output.folder import writing
from fgdd_fast.packing.samples import Pack, Sample, packed_folder


def write_webdataset(pack: Pack, target: Path, task: Task) -> None:
    """Write WebDataset shards into a new folder, which appears whole or not at all.

    Args:
        pack: the samples and their shards.
        target: the folder.
        task: shows how many samples are written.

    Raises:
        OutputError: the folder cannot be written, or is there already and not empty.
        DataError: an image is damaged.
    """
    with packed_folder(pack, target) as folder:
        for number, places in enumerate(pack.shards):
            path = folder / f"distilled-{number:06d}.tar"
            with writing(path), tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for place in places:
                    for name, content in _members(pack.sample(place)):
                        entry = tarfile.TarInfo(name)  # of the year 1970 and user 0: the same in every run
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
                    task.advance()


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """The files of a sample, those of one key side by side and sorted, as WebDataset expects them."""
    files = {
        "cls": str(sample.label).encode("ascii"),
        "json": json.dumps(sample.entry, ensure_ascii=True).encode("ascii"),
        sample.suffix[1:]: sample.content,
    }
    if sample.logits is not None:
        files |= {"logits.npy": _npy(sample.logits.mosaic), "tiles.npy": _npy(sample.logits.tiles)}
    return ((f"{sample.place:06d}.{name}", content) for name, content in sorted(files.items()))


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
