"""The manifest: the contract's keys, the same bytes for the same content, and damaged ones refused."""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import make_record, quick

from fgdd_fast.errors import DataError, OutputError
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.manifest import DistilledImage, Manifest, Model, build, serialise, write
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import arrange
from fgdd_fast.selection.select import select
from fgdd_fast.selection.thresholds import parse_rule

MODELS = {"foreground": Model("saliency", "a" * 64), "teacher": Model("clothes", "b" * 64)}
ODD = os.fsdecode(b'caf\xe9 "two" ') + "🐱"


def make_manifest(**changes: Any) -> Manifest:
    """A manifest of two classes, one of them filled up, with mosaics of 2 x 2."""
    images = {
        ODD: [make_record(f"{ODD}/{place}.jpg", place / 7, full=place / 3) for place in range(8)],
        "b": [make_record(f"b/{place}.jpg", place / 3, crops=(0.1, 0.2, 0.3)) for place in range(4)],
    }
    selections = {name: select(records, parse_rule("mean"), 8, 0) for name, records in images.items()}
    settings: dict[str, Any] = {
        "image_count": 14,
        "settings": {"ipc": 2, "rule": "mean", "pool": None, "overwrite": False, "box_threshold": 0.1},
        "prompts": {ODD: ("café", "a 🐱"), "b": ("bear",)},
        "models": MODELS,
        "selections": selections,
        "images": [
            DistilledImage(f"images/{name}/{name}_{mosaic.index:05d}.png", name, mosaic.tiles)
            for name, selection in selections.items()
            for mosaic in arrange(selection.tiles, 2, 2)
        ],
        "skipped": [Skipped("b/z.jpg", "empty file"), Skipped(f"{ODD}/x.jpg", "no image")],
        "runtime": "a runtime 1.2",
    }
    return build(**{**settings, **changes})


@pytest.mark.parametrize("changes", [{}, {"images": []}, {"images": [], "prompts": {'"images": []': ("x",)}}])
def test_it_is_written_in_parts_and_reads_as_one(changes: dict[str, Any]) -> None:
    content = serialise(make_manifest(**changes))
    assert content == json.dumps(json.loads(content), indent=1).encode() + b"\n"


def as_json(manifest: Manifest) -> dict[str, Any]:
    data = json.loads(serialise(manifest))
    assert isinstance(data, dict)
    return data


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    manifest = make_manifest()
    write(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path / "manifest.json") == manifest
    content = (tmp_path / "manifest.json").read_bytes()
    assert content.isascii()
    assert content.endswith(b"}\n")
    assert serialise(read_manifest(tmp_path)) == content


def test_the_order_of_skipped_images_plays_no_part() -> None:
    skipped = [Skipped("a/1", "x"), Skipped("b/1", "x"), Skipped("a/2", "y"), Skipped("a/1", "w")]
    assert serialise(make_manifest(skipped=skipped)) == serialise(make_manifest(skipped=skipped[::-1]))


@quick
@given(
    st.floats(0, 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda text: text not in (".", "..")),
)
def test_any_number_and_any_name_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, share: float, loss: float, name: str
) -> None:
    manifest = make_manifest()
    tile = replace(manifest.images[0].tiles[0], source=name, occupancy=share, loss=loss)
    image = replace(manifest.images[0], tiles=(tile, *manifest.images[0].tiles[1:]))
    manifest = replace(manifest, images=(image,))
    folder = tmp_path_factory.mktemp("manifest")
    write(manifest, folder)
    found = read_manifest(folder)
    assert found == manifest
    read = found.images[0].tiles[0]
    assert struct.pack("dd", read.occupancy, read.loss) == struct.pack("dd", share, loss)


def test_a_loss_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    manifest = make_manifest()
    tile = replace(manifest.images[0].tiles[0], loss=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        serialise(replace(manifest, images=(DistilledImage("images/b/b_00000.png", "b", (tile,)),)))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"manifest\.json cannot be written: No such file"):
        write(make_manifest(), tmp_path / "missing")


def first_tile(data: dict[str, Any]) -> dict[str, Any]:
    tile = data["images"][0]["tiles"][0]
    assert isinstance(tile, dict)
    return tile


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format 2": (lambda data: data.update(format=2), "says format 2"),
    "no format": (lambda data: data.pop("format"), "manifest lacks 'format'"),
    "format true": (lambda data: data.update(format=True), "manifest.format"),
    "no teacher": (lambda data: data["models"].pop("teacher"), "models lacks 'teacher'"),
    "model hash": (lambda data: data["models"]["teacher"].update(sha256="b"), "models.teacher.sha256"),
    "classes twice": (lambda data: data["dataset"].update(classes=["b", "b"]), "names a class twice"),
    "class number": (lambda data: data["dataset"].update(classes=[1]), "dataset.classes"),
    "no threshold": (lambda data: data["thresholds"].pop("b"), "thresholds"),
    "threshold 2": (lambda data: data["thresholds"].update(b=2), "thresholds.b must lie within"),
    "further": (lambda data: data["further_crops"].update(c=1), "unknown class"),
    "nested setting": (lambda data: data["settings"].update(ipc=[1]), "settings.ipc"),
    "images": (lambda data: data.update(images={}), "manifest.images"),
    "image": (lambda data: data.update(images=[7]), r"images\[0\] lacks 'file'"),
    "class": (lambda data: data["images"][0].update({"class": "c"}), r"images\[0\].class"),
    "file outside": (lambda data: data["images"][0].update(file="../b.png"), r"images\[0\].file must lie in"),
    "file absolute": (lambda data: data["images"][0].update(file="/images/b/b.png"), r"images\[0\].file"),
    "not square": (lambda data: data["images"][1]["tiles"].pop(), r"images\[1\].tiles must fill a square"),
    "no tiles": (lambda data: data["images"][1].update(tiles=[]), r"images\[1\].tiles"),
    "box of 3": (lambda data: first_tile(data)["box"].pop(), r"images\[0\].tiles\[0\].box must be 4"),
    "box of text": (lambda data: first_tile(data).update(box="1234"), "box"),
    "box of fractions": (lambda data: first_tile(data).update(box=[0, 0, 1.5, 1]), "box"),
    "empty box": (lambda data: first_tile(data).update(box=[0, 0, 0, 1]), "box lies outside"),
    "box before 0": (lambda data: first_tile(data).update(box=[-1, 0, 1, 1]), "box lies outside"),
    "cell": (lambda data: first_tile(data).update(cell=[1, 1]), r"cell must be \[0, 0\]"),
    "path": (lambda data: first_tile(data).update(path="half"), "'full' or 'crop'"),
    "occupancy": (lambda data: first_tile(data).update(occupancy=1.5), "occupancy must lie within"),
    "occupancy true": (lambda data: first_tile(data).update(occupancy=True), "finite number"),
    "loss": (lambda data: first_tile(data).update(loss=None), "loss must be a finite number"),
    "huge loss": (lambda data: first_tile(data).update(loss=10**400), "loss must be a finite number"),
    "absolute source": (lambda data: first_tile(data).update(source="/etc/passwd"), "within the data set"),
    "source outside": (lambda data: first_tile(data).update(source="b/../../x"), "within the data set"),
    "skipped": (lambda data: data["skipped"][0].pop("reason"), r"skipped\[0\] lacks 'reason'"),
    "no prompts of a class": (lambda data: data["prompts"].pop(ODD), "prompts must name each class once"),
    "prompts of others": (lambda data: data["prompts"].update(c=["x"]), "prompts must name each class once"),
    "prompts as text": (lambda data: data["prompts"].update(b="x"), "prompts.b must be of the type list"),
    "no phrase": (lambda data: data["prompts"].update(b=[]), "prompts.b must be phrases"),
    "phrase number": (lambda data: data["prompts"].update(b=[1]), "prompts.b must be phrases"),
    "prompts listed": (lambda data: data.update(prompts=[]), "manifest.prompts must be of the type dict"),
    "box threshold 2": (
        lambda data: data["settings"].update(box_threshold=2),
        "box_threshold must lie within",
    ),
    "box threshold": (lambda data: data["settings"].update(box_threshold="0.3"), "must be a finite number"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused_with_the_place(tmp_path: Path, damage: str) -> None:
    change, problem = DAMAGES[damage]
    data = as_json(make_manifest())
    before = copy.deepcopy(data)
    change(data)
    assert data != before or damage == "format true"
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=problem) as caught:
        read_manifest(tmp_path)
    assert "manifest.json" in caught.value.problem


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b'{"format": 1}'],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="no manifest of format 1"):
        read_manifest(tmp_path)


def test_a_missing_manifest(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "x", tmp_path / "manifest.json"):
        with pytest.raises(DataError, match="There is no manifest"):
            read_manifest(path)


def test_unknown_keys_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    manifest = make_manifest()
    data = as_json(manifest)
    data["later"] = {}
    first_tile(data)["later"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    assert read_manifest(tmp_path) == manifest
