from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import picture
from installed_devices import available_devices
from tiny_models import CHANNELS, CLASSES, SIDE, tiny_description, tiny_feeds, tiny_graph, tiny_reference

from fgdd_engines.base import Device, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_export.classifier.bundle import export_teacher, read_class_names
from fgdd_export.classifier.teacher import build_teacher
from fgdd_export.graphs.graph import Array
from fgdd_export.graphs.parity import drawn_images
from fgdd_fast.errors import BundleError, FgddError, SettingsError
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
    given: dict[str, Any] = {
        "licence": "BSD",
        "check": [picture(40, 9), picture(SIDE, SIDE), picture(31, 70)] * 4,
    }
    other = export_teacher(backbone, tmp_path / "b.onnx", classes=CLASSES, **given)
    assert (other.licence, other.parity["images"], other.parity["batches"]) == ("BSD", 12, [8, 1])


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


# Teachers of a head that was fitted


HEAD_CLASSES = ("hat", "shoe", "t-shirt")


def head(scale: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    weight = scale * rng.normal(size=(len(HEAD_CLASSES), CHANNELS))
    return weight.astype(np.float32), rng.normal(size=len(HEAD_CLASSES)).astype(np.float32)


def with_head(
    backbone: Bundle, path: Path, weight: Array, bias: Array, classes: Any = HEAD_CLASSES
) -> Bundle:
    return build_teacher(backbone, weight, bias, classes, path, source={"fitted": "here"}, accuracy={})


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_logits_and_losses_of_a_head(backbone: str, tmp_path: Path, device: Device, scale: float) -> None:
    weight, bias = head(scale)
    teacher = with_head(load_bundle(Path(backbone)), tmp_path / "mine.onnx", weight, bias)
    images, labels = drawn_images(SIDE, SIDE), np.array([0, 2, 1, 1], np.int32)
    with open_engine(
        load_bundle(Path(backbone)), device=device, precision="fp32", axes={"batch": 4}, threads=1
    ) as engine:
        features = engine.run({"images": images})["features"].astype(np.float64)
    with open_engine(teacher, device=device, precision="fp32", axes={"batch": 4}, threads=1) as engine:
        found = engine.run({"images": images, "labels": labels})
    logits = features @ weight.T + bias
    best = logits.max(axis=1)
    expected = np.log(np.exp(logits - best[:, None]).sum(axis=1)) + best - logits[range(4), labels]
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(found["loss"], expected, atol=1e-3 * scale if scale > 1 else 1e-4)
    assert (found["loss"] >= 0).all()
    assert scale == 1 or logits.max() > 100  # where exp(z) is beyond float32
    operators = {node.op_type for node in onnx.load(teacher.onnx).graph.node}
    assert "MatMul" not in operators  # of the backbone's own head, which is not needed


def test_heads_that_do_not_fit_are_refused(backbone: str, tmp_path: Path) -> None:
    bundle, (weight, bias) = load_bundle(Path(backbone)), head()
    for problem, changed, matrix, classes in (
        ("3 classes on 16 features", bundle, weight[:, 1:], HEAD_CLASSES),
        ("2 classes", bundle, weight, HEAD_CLASSES[:2]),
        ("same name", bundle, weight, ("hat", "hat", "shoe")),
        ("not finite", bundle, weight * np.float32(np.nan), HEAD_CLASSES),
        ("no output 'features'", replace(bundle, outputs=()), weight, HEAD_CLASSES),
        ("cannot be read", replace(bundle, onnx=tmp_path / "absent.onnx"), weight, HEAD_CLASSES),
    ):
        with pytest.raises(FgddError, match=problem):
            with_head(changed, tmp_path / "mine.onnx", matrix, bias, classes)
    assert list(tmp_path.iterdir()) == []


# Files of class names


WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Z")), min_size=1)
NAMES = st.lists(st.lists(WORDS, min_size=1).map(" ".join), min_size=1)


@given(names=NAMES, line_end=st.sampled_from(["\n", "\r\n"]), final=st.sampled_from(["", "\n", "\n\n"]))
def test_names_come_back(names: list[str], line_end: str, final: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not names[0].startswith("["):
            text = Path(folder, "names.txt")
            text.write_bytes(line_end.join(names).encode() + final.encode())
            assert read_class_names(text) == tuple(names)
        data = Path(folder, "names.json")
        data.write_text(json.dumps(names), encoding="utf-8")
        assert read_class_names(data) == tuple(names)
        assert read_class_names(data.rename(Path(folder, "names"))) == tuple(names)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("hat\nshoe\n", encoding="utf-8-sig")
    assert read_class_names(path) == ("hat", "shoe")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no class names"),
        (b"\n \n", "no class names"),
        (b"hat\n\nshoe\n", "Name 2 .* is empty"),
        (b"h\xe4t\n", "no UTF-8"),
        (b'["hat", "shoe"', "no JSON"),
        (b'["hat", 3]', "no JSON list of names"),
        (b"[]", "no class names"),
        (b"[" * 100_000, "no JSON"),
        (b'["hat", " "]', "Name 2 .* is empty"),
        (b'["", ""]', "no class names"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=problem):
        read_class_names(path)


def test_what_is_no_file_or_no_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_class_names(tmp_path / "absent.txt")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_class_names(tmp_path)
    path = tmp_path / "names.json"
    path.write_text('{"0": "hat"}', encoding="utf-8")
    with pytest.raises(SettingsError, match="no JSON list"):
        read_class_names(path)
