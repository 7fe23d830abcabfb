"""Grounded SAM 2 over a tiny bundle, in the joint and in the split form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_grounded as tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_grounded import random_scene

from fgdd_engines.base import Array, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod
from fgdd_fast.models.foreground import Foreground, Pixels
from fgdd_fast.models.grounded_sam2 import GroundedSam2, letterbox
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.prompts import Prompting, read_prompts

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

CPU = Runtime("cpu", "fp32", 2)
CLASSES = ("blue", "green", "red")
LEFT_HALF, TOP_RIGHT = (0, 0, 16, 16), (16, 0, 32, 8)


@pytest.fixture(scope="module", params=["joint", "split"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    return tiny.write_grounded_bundle(folder, split=request.param == "split")


@contextmanager
def opened(bundle: Bundle, **changes: Any) -> Iterator[GroundedSam2]:
    options: dict[str, Any] = {"batch": 2, "resize": "area", "classes": CLASSES, "prompts": {}, **changes}
    threshold, runtime = options.pop("threshold", None), options.pop("runtime", CPU)
    with closing(GroundedSam2(bundle, runtime, threshold=threshold, **options)) as model:
        yield model


def source(class_name: str) -> SourceImage:
    return SourceImage(f"{class_name}/1.jpg", class_name, Path("data"))


def find(
    model: GroundedSam2, images: Sequence[tuple[Pixels, str]], *, masks: bool = False
) -> list[Foreground]:
    return model.find([model.prepare(pixels, source(name)) for pixels, name in images], masks=masks)


def boxes(foreground: Foreground) -> list[list[float]]:
    return [[round(edge, 4) for edge in box[:4]] for box in foreground.boxes]


def same(one: Foreground, other: Foreground) -> bool:
    masks_agree = one.mask is other.mask is None or np.array_equal(one.mask, other.mask)
    return one.occupancy == other.occupancy and one.boxes == other.boxes and masks_agree


SCENE = tiny.scene((16, 32), red=LEFT_HALF, blue=TOP_RIGHT)


def test_the_object_that_the_class_names_is_found(bundle: Bundle) -> None:
    with opened(bundle) as model:
        red, blue, green = find(model, [(SCENE, "red"), (SCENE, "blue"), (SCENE, "green")], masks=True)
    assert (red.occupancy, boxes(red)) == (0.5, [[0, 0, 0.5, 1]])
    assert (blue.occupancy, boxes(blue)) == (0.25, [[0.5, 0, 1, 0.5]])
    assert (green.occupancy, boxes(green)) == (0, [])
    assert red.boxes[0].score == pytest.approx(220 / 255)
    expected = np.zeros((3, tiny.SIDE, tiny.SIDE), np.uint8)
    expected[0, :, :8] = 255
    expected[1, :8, 8:] = 255
    for foreground, mask in zip((red, blue, green), expected, strict=True):
        assert foreground.mask is not None
        assert foreground.mask.dtype == np.uint8
        assert (foreground.mask == mask).all()


@pytest.mark.parametrize("size", [(48, 16), (24, 32), (100, 200)])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_boxes_are_shares_of_the_image_whatever_its_aspect(
    bundle: Bundle, size: tuple[int, int], fit: Any
) -> None:
    height, width = size
    pixels = tiny.scene(size, red=(width // 2, height // 2, width, height))
    prompting = replace(tiny.PROMPTING, fit=fit).as_json()
    with opened(replace(bundle, prompting=prompting)) as model:
        (red,) = find(model, [(pixels, "red")])
    assert red.occupancy == pytest.approx(0.25, abs=0.04)
    (box,) = red.boxes
    canvas_pixel = max(1 / valid for valid in letterbox(pixels, *tiny.CANVAS, 1000, "area")[1])
    assert box[:4] == pytest.approx((0.5, 0.5, 1, 1), abs=canvas_pixel)


def test_neighbours_and_the_number_of_images_change_nothing(bundle: Bundle) -> None:
    images = [(random_scene(seed), CLASSES[seed % 3]) for seed in range(7)]
    with opened(bundle, batch=4) as model:
        together = find(model, images, masks=True)
        alone = [find(model, [image], masks=True)[0] for image in images]
        assert model.find([]) == []
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


Runs = list[tuple[Mapping[str, Array], Sequence[str] | None]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Feeds and wanted outputs of every run of an engine."""
    seen: Runs = []
    run = Engine.run

    def watched(
        self: Engine, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        seen.append((feeds, outputs))
        return run(self, feeds, outputs)

    monkeypatch.setattr(Engine, "run", watched)
    return seen


def test_masks_are_fetched_only_where_wanted(bundle: Bundle, runs: Runs) -> None:
    with opened(bundle) as model:
        (without_mask,) = find(model, [(SCENE, "red")])
        assert not any(outputs is None or "mask" in outputs for _, outputs in runs)
        (with_mask,) = find(model, [(SCENE, "red")], masks=True)
        assert any(outputs is not None and "mask" in outputs for _, outputs in runs)
    assert without_mask.mask is None
    assert without_mask.occupancy == with_mask.occupancy


def test_the_segmenter_runs_only_where_something_was_found(tmp_path: Path, runs: Runs) -> None:
    def segmented() -> list[int]:
        return [len(feeds["images"]) for feeds, _ in runs if feeds.keys() == {"images", "boxes", "scores"}]

    with opened(tiny.write_grounded_bundle(tmp_path, split=True)) as model:
        nothing = find(model, [(SCENE, "green")] * 3, masks=True)
        assert segmented() == []
        some = find(model, [(SCENE, name) for name in ("green", "red", "green", "blue", "red")], masks=True)
    assert segmented() == [2, 2]  # three images in two batches
    assert [foreground.occupancy for foreground in nothing] == [0, 0, 0]
    assert all(foreground.mask is not None and not foreground.mask.any() for foreground in nothing)
    assert [foreground.occupancy for foreground in some] == [0, 0.5, 0, 0.25, 0.5]


def test_prompts_come_from_a_file(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("n01440764 red, blue\nn01443537\tnot red, blue\nthing a red patch\n")
    names = ("n01440764", "n01443537", "thing", "red")
    with opened(bundle, classes=names, prompts=read_prompts(path)) as model:
        both, blue, red, by_name = find(model, [(SCENE, name) for name in names])
        assert model.prompt("n01440764") == "a red. a blue."
        assert model.prompt("red") == "a red."
    assert (both.occupancy, boxes(both)) == (0.75, [[0, 0, 0.5, 1], [0.5, 0, 1, 0.5]])
    assert blue.occupancy == 0.25  # phrases do not mix: "not" concerns its own
    assert red.occupancy == by_name.occupancy == 0.5


def test_a_higher_threshold_finds_less(bundle: Bundle) -> None:
    pixels = np.where(SCENE == 30, 80, SCENE)  # the purest pixel differs by 170 of 255, about 0.67
    for threshold, occupancy in ((0.0, 0.5), (0.6, 0.5), (0.7, 0.0), (1.0, 0.0)):
        with opened(bundle, threshold=threshold) as model:
            assert find(model, [(pixels, "red")])[0].occupancy == occupancy
    for threshold, occupancy in ((0.6, 0.5), (0.7, 0)):  # of the bundle, where none is given
        prompting = replace(tiny.PROMPTING, threshold=threshold).as_json()
        with opened(replace(bundle, prompting=prompting)) as model:
            assert find(model, [(pixels, "red")])[0].occupancy == occupancy
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="between 0 and 1"), opened(bundle, threshold=threshold):
            pass


def test_any_thread_gets_the_same_and_each_prompt_is_encoded_once(bundle: Bundle, runs: Runs) -> None:
    images = [(random_scene(seed), CLASSES[seed % 3]) for seed in range(24)]
    with opened(bundle) as model, ThreadPoolExecutor(8) as executor:
        assert len(runs) == len(CLASSES)
        found = list(executor.map(lambda image: find(model, [image], masks=True)[0], images))
        alone = find(model, images, masks=True)
    encoded = [feeds["input_ids"].tobytes() for feeds, _ in runs if "input_ids" in feeds]
    assert len(encoded) == len(set(encoded)) == len(CLASSES)
    assert all(same(one, other) for one, other in zip(found, alone, strict=True))


def test_the_fingerprint_holds_all_that_results_depend_on(bundle: Bundle) -> None:
    def fingerprint(bundle: Bundle = bundle, name: str = "red", **changes: Any) -> tuple[Any, ...]:
        with opened(bundle, **changes) as model:
            return tuple(sorted(model.fingerprint(name).items()))

    one = fingerprint()
    assert one == fingerprint(runtime=Runtime("cpu", "fp32", 1), classes=("red",))
    assert one == fingerprint(threshold=tiny.PROMPTING.threshold)
    squashed = replace(bundle, prompting=replace(tiny.PROMPTING, fit="squash").as_json())
    others = {
        fingerprint(name="blue"),
        fingerprint(batch=3),
        fingerprint(threshold=0.5),
        fingerprint(resize="pil"),
        fingerprint(prompts={"red": ("red", "patch")}),
        fingerprint(squashed),
    }
    assert len(others) == 6
    assert one not in others
    values = {value for _, value in one}
    assert {bundle.sha256, *bundle.parts.values(), *bundle.files.values()} <= values


@pytest.mark.parametrize("size", [(1, 1), (3, 5000)])
def test_extreme_images_are_taken(bundle: Bundle, size: tuple[int, int]) -> None:
    pixels = tiny.scene(size, red=(0, 0, size[1], size[0]))
    for method in RESIZE_METHODS:
        with opened(bundle, resize=method) as model:
            (foreground,) = find(model, [(pixels, "red")])
        assert (foreground.occupancy, boxes(foreground)) == (1, [[0, 0, 1, 1]])


def test_a_class_that_cannot_be_looked_for_is_told_before_anything_is_opened(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdd_fast.models.grounded_sam2.BatchedNetwork", None)
    for name, problem in (
        ("n01440764", "WordNet id"),
        ("!", "no letter"),
        ("xylophone", "knows no word"),
        ("red_red_red_red_red_red_red_red_red", "13 tokens"),
    ):
        with pytest.raises(SettingsError, match=problem), opened(bundle, classes=("red", name)):
            pass


def test_a_bundle_of_another_form_is_refused(bundle: Bundle) -> None:
    def changed(name: str, **changes: Any) -> Bundle:
        specs = [replace(spec, **changes) if spec.name == name else spec for spec in bundle.inputs]
        return replace(bundle, inputs=tuple(specs))

    def lacking(kind: str, name: str) -> Bundle:
        specs: tuple[TensorSpec, ...] = getattr(bundle, kind)
        return replace(bundle, **{kind: tuple(spec for spec in specs if spec.name != name)})

    height, width = tiny.CANVAS
    foreign = "0" * 64
    for damaged, problem in (
        *((lacking("inputs", one.name), f"has no input '{one.name}'") for one in bundle.inputs),
        *((lacking("outputs", one.name), f"has no output '{one.name}'") for one in bundle.outputs),
        *((replace(bundle, parts={**bundle.parts, part: foreign}), "not belong to") for part in bundle.parts),
        (replace(bundle, files={"tokenizer.json": foreign}), "is not the one that"),
        (changed("canvas", dtype="float32"), r"'canvas' of .* is float32 .*, but uint8 .* is needed"),
        (changed("canvas", shape=("batch", 3, height, width)), r"is uint8 \['batch', 3, 24, 32\]"),
        (changed("canvas", shape=("batch", "height", width, 3)), "'canvas'"),
        (changed("valid", shape=(1, 2)), "'valid'"),
        (changed("text_mask", shape=("batch", 7)), r"'text_mask' of .* \['batch', 12\] is needed"),
        (changed("text_features", shape=("batch", 12, 5)), r"'text_features' .* \['batch', 12, 3\]"),
        (
            replace(bundle, inputs=(*bundle.inputs, TensorSpec("more", "uint8", ("batch",)))),
            r"takes the unknown inputs \['more'\]",
        ),
        (replace(bundle, parts={}), "no part 'text'"),
        (replace(bundle, files={}), "no file 'tokenizer.json'"),
        (replace(bundle, prompting=None), "cannot be asked for a class"),
        (replace(bundle, role="detector"), "cannot be asked for a class"),
        (replace(bundle, prompting=replace(tiny.PROMPTING, text_length=16).as_json()), "'input_ids'"),
        (replace(bundle, prompting=replace(tiny.PROMPTING, boxes=2).as_json()), "'boxes'"),
    ):
        with pytest.raises(BundleError, match=problem), opened(damaged):
            pass


def test_the_sidecar_says_how_the_model_is_asked_as_it_always_did(bundle: Bundle) -> None:
    said = (
        '{"form": "a {}.", "text_length": 12, "special_tokens": [101, 102, 1012, 1029], "threshold": 0.4, '
        '"boxes": 3, "fit": "letterbox", "shortest_edge": 1000}'
    )
    data = json.loads(bundle.sidecar.read_text())
    assert json.dumps(data["prompting"]) == said
    assert Prompting.of(load_bundle(bundle.onnx)) == tiny.PROMPTING
    for change in ({"fit": "crop"}, {"boxes": None}, {"text_length": float("inf")}, {"special_tokens": 3}):
        damaged = replace(bundle, prompting={**data["prompting"], **change})
        with pytest.raises(BundleError, match="lacks or garbles a field"), opened(damaged):
            pass


def test_damaged_parts_are_refused(tmp_path: Path) -> None:
    for damage in ("text.onnx", "text.json", "segmenter.onnx", "tokenizer.json"):
        bundle = tiny.write_grounded_bundle(tmp_path, split=True)
        bundle.beside(damage).write_bytes(b"{}")
        with pytest.raises(BundleError, match=damage), opened(load_bundle(bundle.onnx, "foreground")):
            pass
        bundle.beside(damage).unlink()
        with pytest.raises(BundleError, match=damage.split(".")[0]), opened(bundle):
            pass


sides = st.integers(1, 300)


@given(sides, sides, sides, sides, st.sampled_from(RESIZE_METHODS))
def test_a_letterbox_holds_the_whole_image(
    rows: int, columns: int, height: int, width: int, method: ResizeMethod
) -> None:
    pixels = np.full((rows, columns, 3), 200, np.uint8)
    canvas, valid = letterbox(pixels, height, width, 1000, method)
    assert canvas.shape == (height, width, 3)
    assert (canvas.dtype, valid.dtype) == (np.uint8, np.int32)
    filled_rows, filled_columns = (int(length) for length in valid)
    assert 1 <= filled_rows <= height
    assert 1 <= filled_columns <= width
    assert filled_rows == height or filled_columns == width
    assert (canvas[:filled_rows, :filled_columns] == 200).all()
    assert not canvas[filled_rows:].any()
    assert not canvas[:, filled_columns:].any()
    scale = min(height / rows, width / columns)
    assert abs(filled_rows - rows * scale) <= max(0.5, 1 - rows * scale) + 1e-6
    assert abs(filled_columns - columns * scale) <= max(0.5, 1 - columns * scale) + 1e-6


def test_a_letterbox_enlarges_no_further_than_the_detector_was_trained_for() -> None:
    pixels = np.full((30, 60, 3), 9, np.uint8)
    canvas, valid = letterbox(pixels, 100, 100, 40, "area")
    assert valid.tolist() == [40, 80]
    assert (canvas[:40, :80] == 9).all()
    assert not canvas[40:].any()
    assert not canvas[:, 80:].any()
    assert letterbox(pixels, 100, 100, 70, "area")[1].tolist() == [50, 100]  # no room for more
