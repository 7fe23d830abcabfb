from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from image_files import picture
from installed_devices import available_devices
from tiny_models import CLASSES, SIDE, tiny_description, tiny_feeds, tiny_graph, tiny_reference

from fgdd_engines.base import Device, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_export.classifier import bundle as classifier
from fgdd_export.classifier.bundle import export_teacher, measure_parity
from fgdd_export.graphs.graph import Array
from fgdd_fast.errors import BundleError, FgddError, SettingsError
from fgdd_fast.images.resize import resize
from fgdd_fast.models.catalogue.catalogue import find_bundle

FLOAT = onnx.TensorProto.FLOAT


def write_backbone(folder: Path, *, outputs: tuple[str, ...] = ("logits",), opset: int = 17) -> Bundle:
    """The tiny classifier without its loss, as a backbone."""
    model = onnx.load_model_from_string(tiny_graph())
    del model.graph.input[1:], model.graph.output[:]
    specs = {"logits": len(CLASSES), "features": 16}
    for name in outputs:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, ["batch", specs[name]]))
    model = onnx.utils.Extractor(model).extract_model(["images"], list(outputs))
    model.opset_import[0].version = opset
    description = replace(
        tiny_description(folder / "backbone.onnx", "backbone"),
        name="backbone",
        classes=None,
        licence="MIT",
        inputs=(TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3)),),
        outputs=tuple(TensorSpec(name, "float32", ("batch", specs[name])) for name in outputs),
    )
    return write_bundle(description, model.SerializeToString())


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_backbone(tmp_path_factory.mktemp("backbone"), outputs=("logits", "features")).onnx)


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_and_losses_of_a_backbone(backbone: str, tmp_path: Path, device: Device, batch: int) -> None:
    teacher = export_teacher(backbone, tmp_path / "mine.onnx", classes=CLASSES)
    feeds = tiny_feeds(batch)
    with open_engine(teacher, device=device, precision="fp32", axes={"batch": batch}, threads=1) as engine:
        found = engine.run(feeds)
    logits, losses = tiny_reference(feeds)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(found["loss"], losses, atol=1e-4)


def test_the_bundle_says_what_it_is(backbone: str, tmp_path: Path) -> None:
    teacher = export_teacher(backbone, tmp_path / "mine.onnx", classes=CLASSES)
    source = load_bundle(Path(backbone))
    assert load_bundle(tmp_path / "mine.onnx", "teacher") == teacher
    assert (teacher.name, teacher.classes, teacher.licence) == ("mine", CLASSES, "MIT")
    assert teacher.preprocessing == source.preprocessing
    assert teacher.source["kind"] == "backbone"
    assert teacher.source["sha256"] == source.sha256
    assert [(spec.name, spec.dtype, spec.shape) for spec in teacher.inputs + teacher.outputs] == [
        ("images", "uint8", ("batch", SIDE, SIDE, 3)),
        ("labels", "int32", ("batch",)),
        ("logits", "float32", ("batch", len(CLASSES))),
        ("loss", "float32", ("batch",)),
    ]
    assert teacher.parity["images"] == 4
    assert teacher.parity["top1_agreement"] == 1
    assert 0 <= teacher.parity["max_loss_difference"] < 1e-4
    assert export_teacher(backbone, tmp_path / "b.onnx", classes=CLASSES, licence="BSD").licence == "BSD"


def test_given_images_of_any_size_are_checked(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Array] = []

    def spy(run: Any, images: Array, logits: Array) -> dict[str, Any]:
        seen.append(images)
        return measure_parity(run, images, logits)

    monkeypatch.setattr(classifier, "measure_parity", spy)
    check = [picture(width, height) for height, width in ((9, 40), (SIDE, SIDE), (70, 31))] * 4
    teacher = export_teacher(backbone, tmp_path / "mine.onnx", classes=CLASSES, check=check)
    assert teacher.parity["images"] == 12
    assert teacher.parity["batches"] == [8, 1]
    for image, shown in zip(check, seen[0], strict=True):
        np.testing.assert_array_equal(shown, resize(image, (SIDE, SIDE), "area"))


def test_no_pytorch_is_needed(backbone: str, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from fgdd_fast.errors import MissingExtraError\n"
        "from fgdd_export.classifier.bundle import export_teacher\n"
        f"print(export_teacher({backbone!r}, Path('mine.onnx'), classes=list('abcde')).classes)\n"
        "try:\n"
        "    export_teacher('some/checkpoint', Path('mine.onnx'))\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "('a', 'b', 'c', 'd', 'e')" in result.stdout
    assert "pip install 'fgdd-fast[export]'" in result.stdout


def test_imagenet_backbone_of_the_catalogue(tmp_path: Path) -> None:
    name = "imagenet-efficientnet-lite0"
    try:
        find_bundle(name, "backbone")
    except BundleError as error:
        pytest.skip(str(error))
    names = [f"n{index:08}" for index in range(1000)]
    check = [picture(300, 200)]
    teacher = export_teacher(name, tmp_path / "mine.onnx", classes=names, check=check)
    assert (teacher.licence, teacher.preprocessing.pad_value) == ("Apache-2.0", (127, 127, 127))
    assert teacher.parity["max_logit_difference"] < 1e-4
    smaller = export_teacher(name, tmp_path / "small.onnx", classes=names, check=check, size=128)
    assert (smaller.preprocessing.height, smaller.preprocessing.width) == (128, 128)
    with pytest.raises(SettingsError, match="does not name its 1000 classes"):
        export_teacher(name, tmp_path / "mine.onnx", check=check)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "does not name its 5 classes"),
        ({"classes": CLASSES[:3]}, "3 class names"),
        ({"classes": ["a", "b", "a", "c", "d"]}, "same name 'a'"),
        ({"classes": CLASSES, "size": 32}, "takes images of 24 x 24 pixels, not of 32"),
        ({"classes": CLASSES, "mean": (0, 0, 0)}, "normalises its input itself"),
        ({"classes": CLASSES, "std": (1, 1, 1)}, "normalises its input itself"),
    ],
)
def test_settings_that_do_not_fit_a_backbone(
    backbone: str, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        export_teacher(backbone, tmp_path / "mine.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_bundles_that_are_no_classifiers(tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    features = write_backbone(tmp_path, outputs=("features",))
    with pytest.raises(BundleError, match="no output 'logits'"):
        export_teacher(str(features.onnx), target, classes=CLASSES)
    other = write_backbone(tmp_path, opset=16)
    with pytest.raises(BundleError, match="opset 16, not 17"):
        export_teacher(str(other.onnx), target, classes=CLASSES)
    other.onnx.write_bytes(b"")
    for checkpoint in (other.onnx, other.sidecar, tmp_path / "backbone", tmp_path / "absent.onnx"):
        with pytest.raises(BundleError):
            export_teacher(str(checkpoint), target, classes=CLASSES)
    write_bundle(tiny_description(tmp_path / "tiny.onnx"), tiny_graph())
    with pytest.raises(BundleError, match="is a teacher, but a backbone"):
        export_teacher(str(tmp_path / "tiny.onnx"), target, classes=CLASSES)
    assert not target.exists()


def test_nothing_out_of_tolerance_is_written_unless_forced(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdd_export.graphs.parity.ABSOLUTE_TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="max logit difference"):
        export_teacher(backbone, tmp_path / "mine.onnx", classes=CLASSES)
    assert list(tmp_path.iterdir()) == []
    teacher = export_teacher(backbone, tmp_path / "mine.onnx", classes=CLASSES, force=True)
    assert load_bundle(teacher.onnx).parity["tolerance"] < teacher.parity["max_loss_difference"]


@pytest.mark.parametrize("count", [1, 19])
def test_parity_finds_the_largest_differences(count: int) -> None:
    rng = np.random.default_rng(count)
    logits = rng.normal(size=(count, 5))
    logits[-1] = [1, 2, 3, 4, 100]
    order = rng.permutation(256)[:count]
    images = np.broadcast_to(order[:, None, None, None].astype(np.uint8), (count, 2, 2, 3))

    def run(feeds: Mapping[str, Array], *, alone: float = 0.0, last: float = 0.0) -> dict[str, Array]:
        places = [list(order).index(image[0, 0, 0]) for image in feeds["images"]]
        found = logits[places]
        scores = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
        loss = -scores[np.arange(len(found)), feeds["labels"]]
        found = found + alone * (len(found) == 1)
        return {"logits": found, "loss": loss + last * (np.array(places) == count - 1)}

    same = measure_parity(run, images, logits)
    assert same["max_logit_difference"] == 0
    assert same["max_loss_difference"] < 1e-12
    assert (same["images"], same["top1_agreement"], same["max_logit"]) == (count, 1, 100)
    assert same["tolerance"] == pytest.approx(2e-3)
    assert measure_parity(lambda feeds: run(feeds, alone=0.5), images, logits)[
        "max_logit_difference"
    ] == pytest.approx(0.5)
    assert measure_parity(lambda feeds: run(feeds, last=-0.25), images, logits)[
        "max_loss_difference"
    ] == pytest.approx(0.25)
    assert np.isnan(
        measure_parity(lambda feeds: run(feeds, alone=np.nan), images, logits)["max_logit_difference"]
    )


def test_a_checkpoint_that_is_nowhere(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(FgddError, match=r"There is no file absent\.pth"):
        export_teacher("absent.pth", tmp_path / "mine.onnx")
