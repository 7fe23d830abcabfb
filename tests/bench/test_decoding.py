"""Ways from an image file to tiles: what each one shows, and the benchmark that compares them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from image_files import clothing_photographs, encode, exif, needs_clothing, picture

from benchmarks.studies import decoding
from benchmarks.studies.tile_remedies import DECODERS, REFERENCE, WAYS
from fgdd_fast.images.decode import decode_image
from fgdd_fast.selection.records import Box

WHOLE, ODD, SMALL = Box(0, 0, 90, 70), Box(11, 5, 51, 51), Box(60, 40, 21, 21)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("boxes", [(WHOLE, ODD), (WHOLE, ODD, SMALL)])
def test_every_way_shows_the_same_parts(name: str, boxes: tuple[Box, ...]) -> None:
    content = encode(picture(90, 70), "JPEG", quality=95)
    expected = WAYS[REFERENCE](content, boxes, 16)
    found = WAYS[name](content, boxes, 16)
    for tile, reference in zip(found, expected, strict=True):
        assert tile.shape == (16, 16, 3)
        assert tile.dtype == np.uint8
        # From one pixel of the image to the next, levels change by about 3: the least shift would show.
        errors = np.abs(tile.astype(int) - reference)
        assert errors.max() <= 2
        assert errors.mean() < 0.5


@pytest.mark.parametrize("name", ["area", "two passes"])
@needs_clothing
def test_what_only_rounds_differs_by_one_level_at_most(name: str) -> None:
    for path in clothing_photographs(5):
        content = path.read_bytes()
        height, width = decode_image(content).shape[:2]
        boxes = [Box(0, 0, width, height), Box(31, 17, 261, 261), Box(3, 5, 127, 127)]
        found = np.array(WAYS[name](content, boxes, 112), int)
        assert np.abs(found - np.array(WAYS[REFERENCE](content, boxes, 112))).max() <= 1


def test_only_an_upright_jpeg_is_decoded_at_half_its_size() -> None:
    reduced, product = WAYS["decoded at half size"], WAYS["area"]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (70, 90, 3), np.uint8)
    turned = encode(noise, "JPEG", exif=exif(6))
    for content, boxes in ((encode(noise, "PNG"), [WHOLE]), (turned, [Box(0, 0, 70, 90)])):
        assert np.array_equal(reduced(content, boxes, 16), product(content, boxes, 16))
    upright = encode(noise, "JPEG")
    assert np.array_equal(reduced(upright, [WHOLE, SMALL], 16), product(upright, [WHOLE, SMALL], 16))
    assert not np.array_equal(reduced(upright, [WHOLE], 16), product(upright, [WHOLE], 16))


@pytest.mark.parametrize("with_teacher", [False, True])
def test_the_benchmark_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_teacher: bool) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    tiny.write_squares(tmp_path / "data", 3)
    output = tmp_path / "result.json"
    words = [str(tmp_path / "data"), "--images", "6", "--repeats", "3", "--tile", "8", "--json", str(output)]
    if with_teacher:
        words += ["--teacher", str(tiny.teacher_bundle(tmp_path).onnx)]
    result = CliRunner().invoke(decoding.main, words)
    assert result.exit_code == 0, result.output
    data = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text()
    assert data["images"] == 6
    steps = {"read and hash", "header", "header and decode"}
    assert data["milliseconds"].keys() == {*DECODERS, *steps, *WAYS}
    assert all(len(turns) == 3 and min(turns) > 0 for turns in data["milliseconds"].values())
    assert data["ways"].keys() == WAYS.keys()
    alone = data["milliseconds"]["colour"]
    for name, row in data["ways"].items():
        ratios = [one / way for one, way in zip(alone, data["milliseconds"][name], strict=True)]
        assert row["share_of_decoding_alone"] == pytest.approx(sorted(ratios)[1])
        assert bool(row["agreement"]) == with_teacher
    assert data["ways"][REFERENCE]["largest_error"] == 0
    assert data["ways"]["area"]["largest_error"] <= 1
    if with_teacher:
        assert data["ways"][REFERENCE]["agreement"]["same_crop"] == 1
