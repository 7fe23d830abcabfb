"""One data set in every form that DATA may have."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar of these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def images_of(data: Path) -> dict[str, bytes]:
    """The images of a folder, by their sources."""
    return {str(file.relative_to(data)): file.read_bytes() for file in sorted(data.rglob("*.png"))}


def packed_by_tar(data: Path, target: Path) -> Path:
    """A folder packed whole, by the tool of that name."""
    target.mkdir()
    subprocess.run(["tar", "-cf", target / "all.tar", "-C", data.parent, data.name], check=True)
    return target


def as_samples(data: Path, target: Path) -> Path:
    """Two shards of WebDataset samples: labels are indices, and the images' own names stand in their JSON."""
    images = images_of(data)
    classes = sorted({source.split("/")[0] for source in images})
    shards: list[dict[str, bytes]] = [{}, {}]
    for place, (source, content) in enumerate(images.items()):
        label = classes.index(source.split("/")[0])
        shards[place % 2] |= {
            f"{place:06d}.cls": str(label).encode(),
            f"{place:06d}.json": json.dumps({"file": source}).encode(),
            f"{place:06d}.png": content,
        }
    for number, files in enumerate(shards):
        write_tar(target / f"train-{number:06d}.tar", files)
    (target / "classes.txt").write_text("\n".join(classes))
    return target


def as_parquet(data: Path, target: Path, *, names: bool = True, **columns: list[Any]) -> Path:
    """Hugging Face's layout, in row groups of a few images; columns are added or replaced."""
    import pyarrow
    import pyarrow.parquet

    images = images_of(data)
    classes = sorted({source.split("/")[0] for source in images})
    shown = [{"bytes": content, "path": source.split("/")[1]} for source, content in images.items()]
    labels = [classes.index(source.split("/")[0]) for source in images]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
    described = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    table = pyarrow.table({"image": shown, "label": labels, **columns}).replace_schema_metadata(described)
    (target / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(table, target / "data" / "train-00000-of-00001.parquet", row_group_size=5)
    return target


def in_memory(data: Path, address: str = "memory://bucket/train") -> Path:
    """A folder, copied into fsspec's memory."""
    import fsspec

    files = fsspec.filesystem("memory")
    for file in data.rglob("*"):
        if file.is_file():
            files.pipe(f"{address.removeprefix('memory:/')}/{file.relative_to(data)}", file.read_bytes())
    return Path(address)
