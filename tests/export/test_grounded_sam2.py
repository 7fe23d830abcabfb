"""The whole of Grounded SAM 2, PyTorch and ONNX, with miniatures that were trained on drawn scenes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_pipeline as tiny
from miniature_grounded import CANVAS, DETECTOR, SEGMENTER, joint_bundle
from numpy.typing import NDArray
from tiny_architectures import check_wellformed, parse_lowered

from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import resize
from fgdd_fast.models.foreground import Foreground
from fgdd_fast.models.grounded_sam2 import GroundedSam2, bring_to_canvas
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.prompts import Prompting, PromptTokenizer, prompt_text
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.synthetic.scenes import NAMES, Scene, absent_name, draw_scene

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from fgdd_export.graphs.graph import load_model, run_model, serialise
from fgdd_export.graphs.torch_export import Exported, Network, export_network
from fgdd_export.grounded_sam2 import bundle as grounded_sam2
from fgdd_export.grounded_sam2.bundle import GroundedSettings, export_grounded_sam2
from fgdd_export.grounded_sam2.parity import TOLERANCES
from fgdd_export.grounded_sam2.pytorch_reference import DetectorReference, SegmenterReference, union
from fgdd_export.grounding_dino.bundle import DetectorSettings
from fgdd_export.grounding_dino.network import load_grounding_dino
from fgdd_export.precision.conversion import convert_to_half
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import emulate, lower_precision
from fgdd_export.sam2.network import load_sam2
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.sample_images import check_images

SCENES, COMPARED = 24, 12  # drawn, and compared with PyTorch
SIZES = ((240, 320), (320, 240), (256, 256), (200, 320))


def export(
    onnx: Path,
    *,
    images: int = 0,
    split: bool = False,
    force: bool = False,
    boxes: int = 6,
    segmenter_size: int | None = None,
    **changes: Any,
) -> Bundle:
    """Export the miniatures, and compare with PyTorch on so many drawn scenes."""
    detector = DetectorSettings(**{"canvas": CANVAS, "text_length": 16, **changes})
    check = check_images(None, images, {}) if images else ()
    settings = GroundedSettings(detector, boxes, split, segmenter_size)
    return export_grounded_sam2(
        DETECTOR, SEGMENTER, onnx, settings, check=check, licence="Apache-2.0", threads=1, force=force
    )


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained miniatures as one graph."""
    return joint_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained miniatures as detector and segmenter."""
    return export(tmp_path_factory.mktemp("split") / "grounded.onnx", images=1, split=True)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes that were not among the training ones, whose seeds are lower."""
    return [draw_scene(9_000_000 + index, SIZES[index % len(SIZES)]) for index in range(SCENES)]


def ask(bundle: Bundle, scenes: list[Scene], names: list[str]) -> list[Foreground]:
    """Look for a name in each scene, as the pipeline does."""
    options = {"batch": 2, "resize": "area", "classes": NAMES, "prompts": {}, "threshold": None}
    with closing(GroundedSam2(bundle, Runtime("cpu", "fp32", 1), **options)) as model:
        prepared = [
            model.prepare(scene.pixels, SourceImage(f"{name}/1.png", name, Path()))
            for scene, name in zip(scenes, names, strict=True)
        ]
        return model.find(prepared, masks=True)


@pytest.fixture(scope="module")
def present(joint: Bundle, scenes: list[Scene]) -> list[Foreground]:
    return ask(joint, scenes, [scene.objects[0].name for scene in scenes])


def test_the_sidecar_holds_figures_within_tolerance(joint: Bundle) -> None:
    parity = load_bundle(joint.onnx, "foreground").parity
    assert all(parity[measure] <= tolerance for measure, tolerance in TOLERANCES.items())
    assert parity["boxes"] > 4
    assert parity["images_without_a_box"] >= 1
    assert parity["canvas"]["mean_occupancy_change"] < 0.02
    assert joint.source["detector"]["weights"].keys() == {"model.safetensors"}


def test_the_named_object_is_found_and_its_share_measured(
    scenes: list[Scene], present: list[Foreground]
) -> None:
    truth = np.array([scene.occupancy(scene.objects[0].name) for scene in scenes])
    errors = np.abs(truth - [found.occupancy for found in present])
    assert errors.mean() < 0.03
    assert (errors < 0.05).mean() > 0.9
    for scene, found in zip(scenes, present, strict=True):
        height, width = scene.pixels.shape[:2]
        named = [np.array(item.box) for item in scene.objects if item.name == scene.objects[0].name]
        for box in found.boxes:
            assert (
                min(np.abs(np.array(box[:4]) - one / (width, height, width, height)).max() for one in named)
                < 0.1
            )


def test_what_is_not_there_has_occupancy_0(joint: Bundle, scenes: list[Scene]) -> None:
    found = ask(joint, scenes[:8], [absent_name(scene, index) for index, scene in enumerate(scenes[:8])])
    assert [one.occupancy for one in found] == [0.0] * 8
    assert all(one.boxes == () for one in found)


def test_both_forms_agree(split: Bundle, scenes: list[Scene], present: list[Foreground]) -> None:
    found = ask(split, scenes[:8], [scene.objects[0].name for scene in scenes[:8]])
    for one, other in zip(found, present, strict=False):
        assert one.occupancy == pytest.approx(other.occupancy, abs=1e-4)
        assert np.array(one.boxes) == pytest.approx(np.array(other.boxes), abs=1e-4)
        assert one.mask is not None
        assert other.mask is not None
        assert ((one.mask > 127) == (other.mask > 127)).mean() > 0.999


def test_a_smaller_segmenter_is_held_to_pytorch_and_to_the_published_size(
    split: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: list[Scene], present: list[Any]
) -> None:
    there = {"box_finder": split.onnx, "grounding_dino_text": split.part("text").onnx}

    def export_the_segmenter(network: Network, example: Any) -> Exported:
        if network.name in there:
            return Exported(onnx.load(there[network.name]), 0, 0, 0)
        return export_network(network, example)

    monkeypatch.setattr("fgdd_export.graphs.torch_export.slim_model", lambda model: model)
    monkeypatch.setattr("fgdd_export.graphs.torch_export.export_network", export_the_segmenter)
    bundle = export(tmp_path / "x.onnx", images=1, split=True, segmenter_size=64)
    parity = load_bundle(bundle.onnx, "foreground").parity
    assert all(parity[measure] <= tolerance for measure, tolerance in TOLERANCES.items())
    assert bundle.part("segmenter").preprocessing.width == 64
    found = ask(bundle, scenes[:8], [scene.objects[0].name for scene in scenes[:8]])
    changes = [abs(one.occupancy - other.occupancy) for one, other in zip(found, present, strict=False)]
    assert 1e-3 < np.mean(changes) < 0.03
    assert 1e-4 < parity["canvas"]["max_occupancy_change"] < 0.1  # against the checkpoint's own size


def test_pytorch_and_onnx_take_the_same_path_for_every_scene(
    joint: Bundle, scenes: list[Scene], present: list[Foreground]
) -> None:
    """On the bundle's own canvas; and nearly so where PyTorch sees images at its own size for them."""
    detector = DetectorReference(load_grounding_dino(DETECTOR))
    segmenter = SegmenterReference(load_sam2(SEGMENTER))
    side = segmenter.segmenter.image_size
    found = np.array([one.occupancy for one in present[:COMPARED]])
    same_canvas, published = [], []
    for scene in scenes[:COMPARED]:
        prompt = f"a {scene.objects[0].name}."
        canvas, valid = bring_to_canvas(scene.pixels, CANVAS, Prompting.of(joint), "area")
        square = resize(scene.pixels, (side, side), "area")
        boxes = detector.detect_on_canvas(canvas, valid, prompt).above(0.4, 6)
        same_canvas.append(union(segmenter.mask_logits(square, boxes.corners), (side, side)).mean())
        boxes = detector.detect(scene.pixels, prompt).above(0.4, 6)
        size = scene.pixels.shape[0], scene.pixels.shape[1]
        published.append(union(segmenter.mask_logits(scene.pixels, boxes.corners), size).mean())
    assert found == pytest.approx(np.array(same_canvas), abs=1e-4)
    assert (paths(found) == paths(np.array(same_canvas))).all()
    assert np.abs(found - published).mean() < 0.01
    assert (paths(found) == paths(np.array(published))).mean() > 0.9


def paths(occupancies: np.ndarray) -> np.ndarray:
    """Which scenes would be kept whole."""
    return occupancies >= np.quantile(occupancies, 0.3)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"form": "a cat."}, "form"),
        ({"text_length": 9999}, "tokens"),
        ({"canvas": (32, 160)}, "canvas"),
        ({"boxes": 9999}, "boxes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        export(tmp_path / "x.onnx", **settings)


def test_distil_without_pytorch(joint: Bundle, tmp_path: Path) -> None:
    """The pipeline runs the bundle where neither torch nor transformers can be imported."""
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from fgdd_fast.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    drawn = (draw_scene(seed, SIZES[seed % len(SIZES)]) for seed in count(8_000_000))
    discs = islice((scene for scene in drawn if scene.occupancy("red disc") > 0), 4)
    folder = tmp_path / "data" / "red_disc"
    folder.mkdir(parents=True)
    for index, scene in enumerate(discs):
        assert cv2.imwrite(str(folder / f"{index}.png"), cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2BGR))
    teacher = tiny.teacher_bundle(tmp_path, ("blue_square", "neither", "red_disc")).onnx
    command = [sys.executable, "-c", script, "distill", str(folder.parent), str(tmp_path / "out")]
    command += ["--foreground", str(joint.onnx), "--teacher", str(teacher), "--size", "64", "--pool", "4"]
    command += ["--ipc", "1", "--device", "cpu", "--store", str(tmp_path / "store"), "--score-view", "resize"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest.models["foreground"].sha256 == joint.sha256
    occupancies = [tile.occupancy for image in manifest.images for tile in image.tiles]
    assert len(occupancies) == 4
    assert min(occupancies) > 0


def test_neighbours_in_a_batch_change_no_bit(joint: Bundle, scenes: list[Scene]) -> None:
    names = [scene.objects[0].name for scene in scenes[:3]]
    forward = ask(joint, scenes[:3], names)
    backward = ask(joint, scenes[2::-1], names[::-1])[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert (one.occupancy, one.boxes) == (other.occupancy, other.boxes)
        assert one.mask is not None
        assert (one.mask == other.mask).all()


def test_the_joint_form_in_fp16_finds_the_same(joint: Bundle) -> None:
    (converted,) = convert_to_half(joint, "fp16", check_images(None, 3, {}))
    assert converted.parity.accepted
    assert converted.parity.figures["mean_occupancy_error"] < 1e-3
    for suffix in ("onnx", "json"):
        joint.beside(f"fp16.{suffix}").unlink()


def test_a_bundle_out_of_tolerance_is_written_only_if_forced(
    joint: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staged(onnx: Path, *_: object) -> Bundle:
        for file in joint.onnx.parent.iterdir():
            shutil.copy(file, onnx.with_name(file.name.replace(joint.onnx.stem, onnx.stem, 1)))
        return replace(joint, onnx=onnx)

    monkeypatch.setattr(grounded_sam2, "write_text_encoder", lambda *_: joint.part("text"))
    monkeypatch.setattr(grounded_sam2, "_write_graphs", staged)
    monkeypatch.setattr(grounded_sam2, "measure_parity", lambda *_: joint.parity)
    monkeypatch.setattr(grounded_sam2, "TOLERANCES", {"max_score_difference": -1.0})
    with pytest.raises(BundleError, match="max score difference"):
        export(tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
    forced = export(tmp_path / "x.onnx", force=True)
    assert load_bundle(forced.onnx).part("text").sha256 == joint.parts["text"]


# Its detector in low precision

both = pytest.mark.parametrize("precision", ["fp16", "bf16"])


Finder = tuple[onnx.ModelProto, dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def finder(split: Bundle) -> Finder:
    """The trained miniature of Grounding DINO, and scenes to look at."""
    prompting = Prompting.of(split)
    tokenizer = PromptTokenizer(split.file("tokenizer.json"), prompting)
    seen = [draw_scene(8_000_000 + index, (240, 320)) for index in range(6)]
    tokens = [tokenizer.encode(prompt_text((one.objects[0].name,), prompting.form)) for one in seen]
    framed = [bring_to_canvas(one.pixels, CANVAS, prompting, "area") for one in seen]
    canvases, valid = zip(*framed, strict=True)

    def stacked(name: str) -> NDArray[Any]:
        return np.stack([getattr(each, name) for each in tokens])

    encode = load_model(split.part("text").graph())
    return onnx.load(split.onnx), {
        "canvas": np.stack(canvases),
        "valid": np.stack(valid),
        **encode({name: stacked(name) for name in ("input_ids", "self_mask", "position_ids")}),
        "text_mask": stacked("mask"),
        "text_self_mask": stacked("self_mask"),
        "threshold": np.zeros(len(seen), np.float32),
    }


@both
def test_a_detector_finds_the_same_boxes(finder: Finder, precision: LowPrecision) -> None:
    model, feeds = finder
    lowered = lower_precision(model, precision)
    check_wellformed(model, lowered.model, precision)
    assert [entry.version for entry in lowered.model.opset_import] == [17]  # GridSample keeps its meaning
    expected = run_model(serialise(model), feeds)
    found = run_model(serialise(emulate(model, precision)), feeds)
    assert (expected["scores"] > 0.4).sum() > len(expected["scores"])
    tolerance = {"fp16": 0.005, "bf16": 0.05}[precision]
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=tolerance)
    apart = np.abs(expected["boxes"][:, :, None] - found["boxes"][:, None]).max(-1).min(-1)  # in any order
    assert apart[expected["scores"] > 0.4].max() < tolerance / 5


@both
def test_tensorrt_takes_a_detector_in_low_precision(finder: Finder, precision: LowPrecision) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    parse_lowered(trt, finder[0], precision)  # its engine takes minutes


def test_tensorrt_builds_the_split_form(split: Bundle, rtx: TensorRt, tmp_path: Path) -> None:
    settings = BuildSettings(device="tensorrt-rtx", precision="fp32", batch=Profile(1, 1, 2))
    built = build_engines(split, settings, lambda _: check_images(None, 1, {}), store=PlanStore(tmp_path))
    plans = {plan.key.model: plan for plan in built.plans}
    assert plans.keys() == {"grounded", "grounded.text", "grounded.segmenter"}
    for plan in plans.values():
        assert plan.bytes == plan.path.stat().st_size > 1000
        assert plan.precisions.keys() <= {"fp32"}
        assert plan.state == ("unchecked" if find_cuda_device() is None else "passed")
