"""WebDataset shards, read by the library `webdataset`."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_distilled import ODD_CLASSES, noise, write_distilled, write_labels
from watched_progress import Watched

from fgdd_fast import pack
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.mosaic import Format

ORDER = [0, 2, 4, 1, 3, 5]


def read_back(target: Path) -> list[dict[str, Any]]:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    urls = sorted(str(path) for path in target.glob("*.tar"))
    return [*webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")]


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_the_library_reads_what_was_packed(tmp_path: Path, format: Format) -> None:
    distilled = write_distilled(tmp_path / "out", ODD_CLASSES, format=format)
    write_labels(distilled)
    pack(tmp_path / "out", tmp_path / "target", format="webdataset", shard_size=0.002)

    assert len(list((tmp_path / "target").glob("distilled-*.tar"))) > 1
    samples = read_back(tmp_path / "target")
    assert [sample["__key__"] for sample in samples] == [f"{place:06d}" for place in range(6)]
    entries = json.loads((tmp_path / "target" / "manifest.json").read_bytes())["images"]
    for sample, index in zip(samples, ORDER, strict=True):
        near = 0 if format == "png" else 2  # two JPEG decoders
        assert np.abs(sample[format].astype(int) - distilled.read(index)).max() <= near
        assert sample["cls"] == distilled.labels[index]
        assert sample["json"] == entries[index]
        assert distilled.manifest.classes[sample["cls"]] == sample["json"]["class"]
        assert sample["logits.npy"].dtype == sample["tiles.npy"].dtype == np.float16
        assert (sample["logits.npy"] == noise(6, 3)[index]).all()
        assert (sample["tiles.npy"] == noise(6, 4, 3)[index]).all()


def test_without_stored_labels_there_are_no_logits(tmp_path: Path) -> None:
    write_distilled(tmp_path / "out")
    pack(tmp_path / "out", tmp_path / "target", format="webdataset")
    samples = read_back(tmp_path / "target")
    assert len(samples) == 4
    assert {name for sample in samples for name in sample if not name.startswith("__")} == {
        "png",
        "cls",
        "json",
    }


def test_nothing_of_the_machine_is_in_the_shards(tmp_path: Path) -> None:
    write_distilled(tmp_path / "out")
    watched = Watched()
    pack(tmp_path / "out", tmp_path / "target", format="webdataset", progress=watched)
    with tarfile.open(tmp_path / "target" / "distilled-000000.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(member.name for member in members)
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.isfile()
        picture = tar.extractfile("000001.png")
        assert picture is not None
        assert picture.read() == open_distilled(tmp_path / "out").content(2)
    assert watched.steps == [("Packing", done) for done in range(1, 5)]
