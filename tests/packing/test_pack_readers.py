"""What was packed, read by the libraries webdataset and Hugging Face's datasets."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_distilled import ODD_CLASSES, noise, write_distilled, write_labels
from watched_progress import Watched

from fgdd_fast import pack
from fgdd_fast.errors import DataError
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.mosaic import Format
from fgdd_fast.packing.huggingface import card
from fgdd_fast.packing.samples import Pack

ORDER = [0, 2, 4, 1, 3, 5]
READABLE = ["St. Bernard", 'caf\\xe9 "au lait"', "犬 | 🐕"]


def read_shards(target: Path) -> list[dict[str, Any]]:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    urls = sorted(str(path) for path in target.glob("*.tar"))
    return [*webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")]


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_webdataset_reads_what_was_packed(tmp_path: Path, format: Format) -> None:
    distilled = write_distilled(tmp_path / "out", ODD_CLASSES, format=format)
    write_labels(distilled)
    pack(tmp_path / "out", tmp_path / "target", format="webdataset", shard_size=0.002)

    assert len(list((tmp_path / "target").glob("distilled-*.tar"))) > 1
    samples = read_shards(tmp_path / "target")
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
    samples = read_shards(tmp_path / "target")
    assert len(samples) == 4
    names = {name for sample in samples for name in sample if not name.startswith("__")}
    assert names == {"png", "cls", "json"}


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


def read_back(target: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(target), cache_dir=str(target.parent / "cache"), split="train")


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_datasets_reads_what_was_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    distilled = write_distilled(tmp_path / "out", ODD_CLASSES, format=format)
    write_labels(distilled)
    pack(tmp_path / "out", tmp_path / "target", format="huggingface", shard_size=0.002)
    assert len(list((tmp_path / "target" / "data").glob("train-*-of-*.parquet"))) > 1

    found = read_back(tmp_path / "target", monkeypatch)
    assert found.features["label"].names == READABLE
    assert found.column_names == ["image", "label", "file", "tiles", "logits", "tile_logits"]
    assert len(found) == 6
    for row, index in zip(found, ORDER, strict=True):
        entry = distilled.manifest.images[index]
        near = 0 if format == "png" else 2  # two JPEG decoders
        assert np.abs(np.asarray(row["image"]).astype(int) - distilled.read(index)).max() <= near
        assert row["image"].mode == "RGB"
        assert row["label"] == distilled.labels[index]
        assert os.fsencode(row["file"]) == os.fsencode(entry.file).replace(b"\xe9", rb"\xe9")
        assert np.allclose(row["logits"], noise(6, 3)[index], atol=0)
        assert np.allclose(row["tile_logits"], noise(6, 4, 3)[index], atol=0)
        for tile, source in zip(row["tiles"], entry.tiles, strict=True):
            assert tile["box"] == list(source.box)
            assert os.fsencode(tile["source"]) == os.fsencode(source.source).replace(b"\xe9", rb"\xe9")
            stored = (tile["sha256"], tile["path"], tile["occupancy"], tile["loss"])
            assert stored == (source.sha256, source.kind, source.occupancy, source.loss)


def test_image_files_go_in_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    distilled = write_distilled(tmp_path / "out", ipc=101, size=8, factor=1)
    pack(tmp_path / "out", tmp_path / "target", format="huggingface")
    import datasets

    found = read_back(tmp_path / "target", monkeypatch)
    assert found.column_names == ["image", "label", "file", "tiles"]
    raw = found.cast_column("image", datasets.Image(decode=False))
    files = {entry.file: index for index, entry in enumerate(distilled.manifest.images)}
    assert len(raw) == 202
    for row in raw:
        assert row["image"]["bytes"] == distilled.content(files[row["file"]])
        assert row["image"]["path"] == Path(row["file"]).name


def test_the_card_tells_what_is_in_it_and_where_it_comes_from(tmp_path: Path) -> None:
    distilled = write_distilled(tmp_path / "out", ODD_CLASSES)
    hard = card(Pack(distilled, 10**9))
    assert hard.startswith("---\nlicense: unknown\n")
    assert "6 images of 3 classes, distilled from 40 photographs by fgdd-fast 1.2.3" in hard
    assert "mosaic of 2 x 2 tiles" in hard
    for model in distilled.manifest.models.values():
        assert f"| {model.name} | `{model.sha256}` |" in hard
    assert "logits" not in hard
    write_labels(distilled)
    assert "`tile_logits`" in card(Pack(distilled, 10**9))


def test_the_card_shows_hostile_names_as_text(tmp_path: Path) -> None:
    distilled = write_distilled(tmp_path / "out")
    evil = "<script>alert(1)</script>\n---\n[x](javascript:1) | ![y](z) `code`"
    data = json.loads((tmp_path / "out/manifest.json").read_text())
    data["models"]["teacher"]["name"] = data["tool"]["fgdd-fast"] = evil
    (tmp_path / "out/manifest.json").write_text(json.dumps(data))
    shown = card(Pack(open_distilled(distilled.folder), 10**9))
    assert "<script" not in shown
    assert shown.count("\n---\n") == 1
    assert "](" not in shown.replace("\\]", "")
    assert "| teacher | &lt;script&gt;" in shown


def test_two_classes_that_read_alike_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    write_distilled(tmp_path / "out", (os.fsdecode(b"caf\xe9"), "caf\\xe9"))
    with pytest.raises(DataError, match="Two classes"):
        pack(tmp_path / "out", tmp_path / "target", format="huggingface")
    assert not (tmp_path / "target").exists()
