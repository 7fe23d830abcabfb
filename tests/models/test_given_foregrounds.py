"""Foregrounds that users bring: alpha channels, COCO's annotations, YOLO's labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from image_files import encode, exif
from PIL import Image
from tiny_distillation import contents, distill

import fgdd_fast
from fgdd_fast.errors import DataError, FgddError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_image
from fgdd_fast.models.given.alpha import AlphaForeground
from fgdd_fast.models.given.annotated import AnnotatedForeground
from fgdd_fast.models.given.coco import read_coco
from fgdd_fast.models.given.regions import Region, box_ring, draw
from fgdd_fast.models.given.yolo import read_yolo
from fgdd_fast.output.manifest_reading import read_manifest

HEIGHT, WIDTH = 20, 30
TRUTH = np.zeros((HEIGHT, WIDTH), bool)
TRUTH[5:15, 6:18] = True
BLANK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
BOX = [6, 5, 12, 10]  # left, top, width, height
RING = [6, 5, 18, 5, 18, 15, 6, 15]
RUNS = [6 * HEIGHT + 5, 10, *[10, 10] * 11, 5 + 12 * HEIGHT]


def image(source: str = "cat/1.jpg", root: Path = Path("data")) -> SourceImage:
    return SourceImage(source, source.partition("/")[0], root)


# Alpha

CUT_OUT = np.dstack([np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.where(TRUTH, 255, 0).astype(np.uint8)])
FORMS: Mapping[str, tuple[Image.Image, str]] = {
    "PNG": (Image.fromarray(CUT_OUT), "PNG"),
    "WebP": (Image.fromarray(CUT_OUT), "WEBP"),
    "TIFF": (Image.fromarray(CUT_OUT), "TIFF"),
    "grey PNG": (Image.fromarray(CUT_OUT).convert("LA"), "PNG"),
    "grey TIFF": (Image.fromarray(CUT_OUT).convert("LA"), "TIFF"),
}


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("form", FORMS)
def test_the_alpha_channel_is_the_foreground_upright(tmp_path: Path, form: str, orientation: int) -> None:
    content = encode(*FORMS[form], exif=exif(orientation))
    (tmp_path / "1.img").write_bytes(content)
    pixels = decode_image(content)
    model = AlphaForeground(streams=1)
    found = model.find([model.prepare(pixels, image("1.img", tmp_path))], masks=True)[0]
    assert found.occupancy == TRUTH.mean()
    assert found.mask is not None
    assert ((found.mask > 127) == (pixels[..., 0] < 200)).all()  # the rest of it lies on white


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_image_without_transparency_has_no_foreground(tmp_path: Path, mode: str) -> None:
    content = encode(Image.fromarray(CUT_OUT[..., :3]).convert(mode), "PNG")
    (tmp_path / "1.png").write_bytes(content)
    model = AlphaForeground(streams=1)
    assert model.find([model.prepare(BLANK, image("1.png", tmp_path))])[0].occupancy == 0


def test_cut_outs_are_distilled_and_those_that_are_none_are_counted(workplace: Path) -> None:
    for file in sorted((workplace / "data").rglob("*.png"))[1:]:
        alpha = tiny.coloured(file).astype(np.uint8) * 255
        cv2.imwrite(str(file), np.dstack([cv2.imread(str(file)), alpha]))
    result = distill(workplace, foreground="alpha")
    assert result.exit_code == 0, result.output
    assert "In 1 of" in result.output
    manifest = read_manifest(workplace / "out")
    assert manifest.models["foreground"].name == "alpha"
    for tile in (tile for each in manifest.images for tile in each.tiles):
        alpha = cv2.imread(str(workplace / "data" / tile.source), cv2.IMREAD_UNCHANGED)[..., 3]
        assert tile.occupancy == (alpha > 0).mean()


# COCO


def packed(runs: Sequence[int]) -> str:
    """Runs as COCO packs them into a text."""
    text = ""
    for place, run in enumerate(runs):
        value, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def coco(
    file: Path, *annotations: Mapping[str, Any], names: Sequence[str] = ("1.jpg",), **more: Any
) -> AnnotatedForeground:
    data = {
        "images": [
            {"id": place, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for place, name in enumerate(names)
        ],
        "annotations": [{"image_id": 0, "category_id": 1, **each} for each in annotations],
        "categories": [{"id": 1, "name": "Cat"}, {"id": 2, "name": "dog"}],
        **more,
    }
    file.write_text(json.dumps(data))
    return read_coco(file, ("cat", "dog", "bird"), 1)


RUN_LENGTHS = {"size": [HEIGHT, WIDTH], "counts": RUNS}
HALVES = [[6, 5, 14, 5, 14, 15, 6, 15], [10, 5, 18, 5, 18, 15, 10, 15]]


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": [RING]},
        {"segmentation": HALVES},  # they overlap: a union, not one out of the other
        {"segmentation": RUN_LENGTHS},
        {"segmentation": {**RUN_LENGTHS, "counts": packed(RUNS)}, "iscrowd": 1},
        {"bbox": BOX},
        {"segmentation": [], "bbox": BOX},
    ],
)
def test_every_form_of_coco_gives_the_same_mask(tmp_path: Path, annotation: Mapping[str, Any]) -> None:
    model = coco(tmp_path / "coco.json", annotation, {"category_id": 2, "bbox": [0, 0, 30, 3]})
    assert (model.read(BLANK, image()) == TRUTH).all()
    assert model.read(BLANK, image("dog/1.jpg")).sum() == 30 * 3
    assert model.read(BLANK, image("bird/1.jpg")).sum() == TRUTH.sum() + 30 * 3  # no such category: all


def test_a_polygon_is_filled_by_the_centres_of_pixels() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    disc = (x - 15.3) ** 2 + (y - 9.6) ** 2 <= 64
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.column_stack([15.3 + 8 * np.cos(angles), 9.6 + 8 * np.sin(angles)]).ravel()
    assert (draw([Region("", [ring])], HEIGHT, WIDTH) == disc).mean() > 0.995
    outside = draw([Region("", [box_ring(-9, -9, 99, 99)])], HEIGHT, WIDTH)
    assert outside.all()


@pytest.mark.parametrize(
    ("names", "source", "expected"),
    [
        (["cat/1.jpg", "dog/1.jpg"], "dog/1.jpg", "dog/1.jpg"),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "cat/1.jpg", "train/cat/1.jpg"),
        (["images/1.jpg", "images/2.jpg"], "cat/1.jpg", "images/1.jpg"),
        (["a/1.jpg", "b/1.jpg"], "cat/a/1.jpg", "a/1.jpg"),
        (["a/1.jpg", "b/1.jpg"], "cat/1.jpg", "may be several"),
        (["cat/1.jpg"], "dog/1.jpg", "is not among"),
        (["2.jpg", "11.jpg"], "cat/1.jpg", "is not among"),
    ],
)
def test_annotations_are_found_by_the_end_of_the_path(
    tmp_path: Path, names: Sequence[str], source: str, expected: str
) -> None:
    model = coco(tmp_path / "coco.json", names=names)
    try:
        assert model.path_of(image(source)) == expected
    except ImageError as error:
        assert expected in error.problem  # noqa: PT017


def test_only_images_whose_annotations_changed_are_measured_anew(tmp_path: Path) -> None:
    def prints(*annotations: Mapping[str, Any]) -> list[Mapping[str, str]]:
        model = coco(tmp_path / "coco.json", *annotations, names=["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"])
        sources = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
        return [model.image_fingerprint(image(each)) for each in sources]

    before = prints({"bbox": BOX}, {"bbox": BOX, "image_id": 1})
    after = prints({"bbox": BOX}, {"bbox": [0, 0, 4, 4], "image_id": 1}, {"bbox": BOX, "category_id": 2})
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"images": []}, r"annotations\[0\].image_id is of no image: 0"),
        ({"categories": []}, "is of no category: 1"),
        ({"annotations": 3}, "annotations must be a list"),
        ({"annotations": [{"image_id": 0, "category_id": 1}]}, "neither a segmentation nor a bbox"),
        ({"annotations": [{"image_id": 0, "category_id": 1, "segmentation": [[1, 2, 3]]}]}, "polygon"),
        (
            {
                "annotations": [
                    {"image_id": 0, "category_id": 1, "segmentation": {"size": [9, 9], "counts": []}}
                ]
            },
            "size is not its image's",
        ),
        ({"images": [{"id": 0, "file_name": "1.jpg"}]}, "no width and height"),
        ({"images": [{"id": 0, "file_name": "1.jpg", "height": 1, "width": 1}] * 2}, "the same id"),
        ({"images": [{"id": 0, "file_name": "1.jpg", "height": 90000, "width": 90000}]}, "too large"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path: Path, more: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        coco(tmp_path / "coco.json", {"bbox": BOX}, **more)
    with pytest.raises(DataError, match="No such file"):
        read_coco(tmp_path / "nowhere.json", ("cat",), 1)


@pytest.mark.parametrize(
    "annotation", [{"segmentation": [[10**400, *RING[1:]]]}, {"segmentation": [[1e308, *RING[1:]]]}]
)
def test_what_lies_farther_away_than_any_pixel_is_refused(
    tmp_path: Path, annotation: Mapping[str, Any]
) -> None:
    with pytest.raises(DataError, match="no list of x and y"):
        coco(tmp_path / "coco.json", annotation)
    with pytest.raises(DataError, match="bbox"):
        coco(tmp_path / "coco.json", {"bbox": [0, 0, 1e308, 1]})


def test_a_damaged_run_length_code_costs_its_image_alone(tmp_path: Path) -> None:
    model = coco(tmp_path / "coco.json", {"segmentation": {**RUN_LENGTHS, "counts": "04~~"}})
    with pytest.raises(ImageError, match="run-length code is not of 30 x 20"):
        model.read(BLANK, image())


def test_coco_distils_as_the_same_masks_do_and_a_check_counts_what_lacks(workplace: Path) -> None:
    images, annotations = [], []
    masks = tiny.write_masks(workplace)
    for number, file in enumerate(sorted((workplace / "data").rglob("*.png"))):
        mask = tiny.coloured(file)
        runs = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=False)).tolist()
        counts = np.diff([0, *runs, mask.size]).tolist()
        name = file.relative_to(workplace / "data").as_posix()
        images.append(
            {"id": number, "file_name": f"train/{name}", "height": len(mask), "width": mask.shape[1]}
        )
        segmentation = {"size": list(mask.shape), "counts": packed(counts)}
        annotations.append({"image_id": number, "category_id": 0, "segmentation": segmentation})
    data = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "thing"}]}
    file = workplace / "coco.json"
    file.write_text(json.dumps(data))
    assert distill(workplace, "by-masks", foreground=f"masks:{masks}").exit_code == 0
    result = distill(workplace, "by-coco", foreground=f"coco:{file}")
    assert result.exit_code == 0, result.output
    expected, found = (read_manifest(workplace / f"by-{name}") for name in ("masks", "coco"))
    assert found.images == expected.images
    assert found.thresholds == expected.thresholds
    file.write_text(json.dumps({**data, "images": images[1:], "annotations": annotations[1:]}))
    findings = fgdd_fast.check_data(workplace / "data", needs="files", foreground=f"coco:{file}")
    messages = [each.message for each in findings if each.code == "annotations"]
    assert re.match(r"1 image of \d+: each is not among the annotations", messages[0])
    assert "all objects count" in messages[1]
    assert contents(workplace / "by-coco")


# YOLO


def yolo(folder: Path, labels: str, **files: str) -> AnnotatedForeground:
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "1.txt").write_text(labels)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return read_yolo(folder / "labels", ("cat", "dog"), 1)


BOX_LABEL = f"0 {12 / 30} {10 / 20} {12 / 30} {10 / 20}"
RING_LABEL = "0 " + " ".join(str(value / side) for value, side in zip(RING, [30, 20] * 4, strict=True))


@pytest.mark.parametrize("label", [BOX_LABEL, RING_LABEL, f"{BOX_LABEL}\n\n{RING_LABEL}\n"])
def test_yolo_labels_are_boxes_and_polygons(tmp_path: Path, label: str) -> None:
    assert (yolo(tmp_path, label).read(BLANK, image()) == TRUTH).all()
    with pytest.raises(ImageError, match="is not among the annotations"):
        yolo(tmp_path, label).read(BLANK, image("cat/2.jpg"))
    assert not yolo(tmp_path, "").read(BLANK, image()).any()


@pytest.mark.parametrize(
    "files",
    [
        {"classes_txt": "dog\ncat\n"},
        {"data_yaml": "path: x\nnames: [dog, 'cat']  # two\nnc: 2\n"},
        {"data_yaml": "names:\n  0: dog\n  1: cat\nnc: 2\n"},
        {"data_yaml": 'names:\n- dog\n- "cat"\nnc: 2\n'},
        {"data_yaml": "nc: 2\nnames: {0: dog, 1: cat}\n"},
        {"data_yaml": "names: [\n  'dog',\n  'cat',\n]\nnc: 2\n"},
    ],
)
def test_the_objects_of_the_image_s_class_count(tmp_path: Path, files: Mapping[str, str]) -> None:
    model = yolo(tmp_path, f"1{BOX_LABEL[1:]}\n0 0.5 0.05 1 0.1", **files)
    assert (model.read(BLANK, image()) == TRUTH).all()
    assert model.read(BLANK, image("dog/1.jpg")).sum() == 30 * 2


@pytest.mark.parametrize(
    ("labels", "files", "problem"),
    [
        ("0 0.5 0.5 0.1", {}, r"1\.txt, line 1 is no label"),
        (f"{BOX_LABEL}\ncat 0.5 0.5 0.1 0.1", {}, r"1\.txt, line 2 is no label: 'cat 0.5"),
        ("0 nan 0.5 0.1 0.1", {}, "is no label"),
        ("0 320 240 100 50", {}, "is in pixels"),
        ("2 0.5 0.5 0.1 0.1", {"classes_txt": "cat\ndog"}, "is of class 2, and 2 are named"),
        (BOX_LABEL, {"data_yaml": "names:\n  0: cat\n  2: dog\n"}, "names in .* cannot be read"),
    ],
)
def test_labels_that_are_not_yolo_s_are_refused_by_line(
    tmp_path: Path, labels: str, files: Mapping[str, str], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        yolo(tmp_path, labels, **files)


def test_folders_without_labels_are_refused(tmp_path: Path) -> None:
    for name in ("yolo:", f"yolo:{tmp_path / 'nowhere'}", "coco:", f"coco:{tmp_path}"):
        with pytest.raises(FgddError):
            fgdd_fast.check_data(tiny.write_squares(tmp_path / "data", 1), foreground=name, needs="files")
