from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_classifiers as tiny  # noqa: E402
from installed_devices import available_devices  # noqa: E402
from tiny_builds import built_share  # noqa: E402
from tiny_classifiers import CLASSES, SIDE  # noqa: E402
from torch import nn  # noqa: E402

from fgdd_engines.base import Device, TensorSpec  # noqa: E402
from fgdd_engines.bundle.bundle import Bundle, load_bundle  # noqa: E402
from fgdd_engines.bundle.files import file_sha256  # noqa: E402
from fgdd_engines.factory import open_engine  # noqa: E402
from fgdd_export.classifier import bundle as classifier  # noqa: E402
from fgdd_export.classifier.bundle import export_teacher  # noqa: E402
from fgdd_export.classifier.network import Normalisation  # noqa: E402
from fgdd_export.classifier.weights import BasicBlock, ConvNet, ResNet  # noqa: E402
from fgdd_export.graphs.graph import read_model  # noqa: E402
from fgdd_export.graphs.parity import drawn_images  # noqa: E402
from fgdd_export.graphs.torch_export import Network, export_network  # noqa: E402
from fgdd_export.precision.conversion import convert_to_half  # noqa: E402
from fgdd_fast.errors import BundleError, FgddError, MissingExtraError, SettingsError  # noqa: E402
from fgdd_fast.runtime.sample_images import drawn_sample_images  # noqa: E402

INPUT: dict[str, Any] = {"classes": CLASSES, "size": SIDE, "mean": tiny.MEAN, "std": tiny.STD}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a network reachable as a checkpoint's name."""

    def name(make: Callable[[], Any]) -> str:
        monkeypatch.setitem(sys.modules, "own_networks", tiny.module_of(make=make))
        return "own_networks:make"

    return name


class Around(nn.Module):
    """A network whose output is changed."""

    def __init__(self, change: Callable[[Any], Any], network: Any = None) -> None:
        super().__init__()
        self.network = tiny.convolutional() if network is None else network
        self.change = change

    def forward(self, images: Any) -> Any:
        return self.change(self.network(images))


def published(network: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    """Logits and losses by PyTorch in float64, with the normalisation written out."""
    planes = torch.tensor(np.stack(images) / 255.0).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (tiny.MEAN, tiny.STD))
    with torch.no_grad():
        output = network.double()((planes - mean) / std)
        logits = getattr(output, "logits", output)
        loss = nn.functional.cross_entropy(logits, torch.tensor(labels).long(), reduction="none")
    return logits.numpy(), loss.numpy()


def assert_parity(teacher: Bundle, network: Any, device: Device = "cpu", images: Any = None) -> None:
    """Hold a bundle against the network, with batches of 1, 2, 3 and more."""
    size = teacher.preprocessing.width
    images = drawn_images(size, size) if images is None else images
    labels = (np.arange(len(images)) * 3 % len(CLASSES)).astype(np.int32)
    logits, losses = published(network, images, labels)
    for batch in sorted({1, 2, 3, len(images)}):
        with open_engine(
            teacher, device=device, precision="fp32", axes={"batch": batch}, threads=1
        ) as engine:
            found = engine.run({"images": np.stack(images[:batch]), "labels": labels[:batch]})
        np.testing.assert_allclose(found["logits"], logits[:batch], rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(found["loss"], losses[:batch], rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("architecture", list(tiny.CONFIGS))
def test_transformers(tmp_path: Path, architecture: str) -> None:
    folder = tiny.save_pretrained(tmp_path / "network", architecture)
    teacher = export_teacher(str(folder), tmp_path / "mine.onnx")
    assert teacher.classes == CLASSES
    assert (teacher.source["kind"], teacher.source["checkpoint"]) == ("transformers", "network")
    assert teacher.source["architecture"].endswith("ForImageClassification")
    weights = folder / "model.safetensors"
    assert teacher.source["weights"] == {weights.name: file_sha256(weights)}
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    for device in available_devices():
        assert_parity(teacher, network, device)
    if find_spec("tensorrt_rtx") is not None:
        convert_to_half(teacher, "fp16", drawn_sample_images(6, named=False))
        assert built_share(teacher, "fp32", tmp_path / "engines") > 0.99
        assert built_share(teacher, "fp16", tmp_path / "engines") > 0.6


def rded_networks() -> dict[str, Any]:
    return {
        "resnet18": ResNet([2, 2, 2, 2], 8, 3, 5, block=BasicBlock, small=False),
        "resnet18_modified": ResNet([2, 2, 2, 2], 8, 3, 5, block=BasicBlock, small=True),
        **{f"conv{depth}": ConvNet(depth, 8, 3, 5, 32 >> depth) for depth in (3,)},
    }


@pytest.mark.parametrize("name", list(rded_networks()))
def test_rded(tmp_path: Path, name: str) -> None:
    network = tiny.randomise(rded_networks()[name])
    torch.save({"model": network.state_dict()}, tmp_path / "mine.pth")
    teacher = export_teacher(str(tmp_path / "mine.pth"), tmp_path / "mine.onnx", classes=CLASSES, size=SIDE)
    assert teacher.source["architecture"] == name
    assert_parity(teacher, network)
    with pytest.raises(SettingsError, match="does not name its 5 classes"):
        export_teacher(str(tmp_path / "mine.pth"), tmp_path / "other.onnx", size=SIDE)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript(tmp_path: Path, how: str) -> None:
    network = tiny.convolutional()
    example = torch.zeros(1, 3, SIDE, SIDE)
    saved = torch.jit.script(network) if how == "script" else torch.jit.trace(network, example)
    torch.jit.save(saved, tmp_path / "mine.ts")
    with pytest.raises(SettingsError, match="is TorchScript, which is a program"):
        export_teacher(str(tmp_path / "mine.ts"), tmp_path / "mine.onnx", **INPUT)
    teacher = export_teacher(str(tmp_path / "mine.ts"), tmp_path / "mine.onnx", **INPUT, trust_code=True)
    assert (teacher.source["kind"], teacher.source["architecture"]) == ("torchscript", "Sequential")
    assert_parity(teacher, network)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(teacher.onnx).graph.node}


class Attention(nn.Module):
    """PyTorch's own transformer, for which it has a fused operator in inference."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Any) -> Any:
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def normalised(norm: nn.Module) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), norm, nn.ReLU(), nn.AvgPool2d(5), nn.Flatten())
    return nn.Sequential(*network, nn.Linear(72, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: normalised(nn.GroupNorm(4, 8)),
        lambda: normalised(nn.InstanceNorm2d(8, affine=True)),
        lambda: normalised(nn.LayerNorm([8, 15, 15])),
        Attention,
        lambda: nn.Sequential(*tiny.convolutional(), nn.Dropout(0.9)),
    ],
)
def test_layers(tmp_path: Path, make: Callable[[], nn.Module], own: Callable[..., str]) -> None:
    network = tiny.randomise(make()).train()
    teacher = export_teacher(own(lambda: network), tmp_path / "mine.onnx", **INPUT)
    assert not any(part.training for part in network.modules())
    assert_parity(teacher, network)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: (logits, logits + 1),
        lambda logits: [logits],
        lambda logits: {"aux": logits + 1, "logits": logits},
        lambda logits: transformers.modeling_outputs.ImageClassifierOutput(loss=None, logits=logits),
    ],
)
def test_what_networks_return(tmp_path: Path, change: Any, own: Callable[..., str]) -> None:
    teacher = export_teacher(own(lambda: Around(change)), tmp_path / "mine.onnx", **INPUT)
    assert_parity(teacher, tiny.convolutional())


def test_the_bundle_says_what_it_is(tmp_path: Path) -> None:
    folder = tiny.save_pretrained(tmp_path / "network", "resnet")
    teacher = export_teacher(str(folder), tmp_path / "mine.onnx", licence="Apache-2.0")
    assert load_bundle(tmp_path / "mine.onnx", "teacher") == teacher
    assert (teacher.name, teacher.licence) == ("mine", "Apache-2.0")
    assert teacher.preprocessing.pad_value == (124, 116, 104)
    assert "(0.485, 0.456, 0.406)" in teacher.preprocessing.description
    assert str(tmp_path) not in teacher.sidecar.read_text(encoding="utf-8")
    making = teacher.source["export"]
    assert making["nodes_before_slimming"] >= making["nodes"] > 5
    assert making["with"]["torch"] == torch.__version__
    assert [spec.shape for spec in teacher.inputs] == [("batch", SIDE, SIDE, 3), ("batch",)]
    graph = onnx.load(teacher.onnx)
    assert graph.opset_import[0].version == 17
    readers = [node.op_type for node in graph.graph.node if "images" in node.input]
    assert readers == ["Cast"]  # what TensorRT asks of a uint8 input
    assert teacher.parity["batches"] == [4, 1]
    (tmp_path / "again").mkdir()
    again = export_teacher(str(folder), tmp_path / "again" / "mine.onnx", licence="Apache-2.0")
    assert again.sidecar.read_bytes() == teacher.sidecar.read_bytes()
    assert again.sha256 == teacher.sha256


def test_own_normalisation_and_names_come_first(tmp_path: Path) -> None:
    folder = tiny.save_pretrained(tmp_path / "network", "convnext")
    names = ["a", "b", "c", "d", "e"]
    teacher = export_teacher(
        str(folder), tmp_path / "mine.onnx", classes=names, mean=(0, 0, 0), std=(1, 1, 1), size=48
    )
    assert teacher.classes == tuple(names)
    assert teacher.preprocessing.pad_value == (0, 0, 0)
    assert teacher.preprocessing.height == 48
    images = drawn_images(48, 48)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(torch.tensor(images / 255.0).permute(0, 3, 1, 2).float()).logits.numpy()
    with open_engine(teacher, device="cpu", precision="fp32", axes={"batch": 4}, threads=1) as engine:
        found = engine.run({"images": images, "labels": np.zeros(4, np.int32)})
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)


@given(st.tuples(*[st.floats(-0.5, 1.5)] * 3))
def test_the_pad_value_is_nearest_to_zero(mean: tuple[float, float, float]) -> None:
    values = np.arange(256) / 255
    pad = np.array(Normalisation(mean, (0.2, 0.3, 0.4)).pad_value)
    for channel in range(3):
        distance = abs(values - mean[channel])
        assert distance[pad[channel]] <= distance.min() + 1e-12


def check_refused(checkpoint: str, folder: Path, problem: str, **settings: Any) -> FgddError:
    """The error that an export raises; nothing may have been written."""
    target = folder / "refused.onnx"
    with pytest.raises(FgddError, match=problem) as told:
        export_teacher(checkpoint, target, **{**INPUT, **settings})
    assert not target.exists()
    assert not target.with_suffix(".json").exists()
    return told.value


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tiny.convolutional(channels=1), "takes grey images"),
        (lambda: tiny.convolutional(channels=4), "cannot take images of 32 x 32"),
        (lambda: tiny.convolutional(classes=1), r"gives \[2, 1\] for 2 images"),
        (lambda: nn.Conv2d(3, 8, 3), r"gives \[2, 8, 30, 30\] for 2 images, not \[batch, classes\]"),
        (lambda: Around(lambda logits: logits[:1]), r"gives \[1, 5\] for 2 images"),
        (lambda: Around(lambda logits: logits * np.nan), "not finite"),
        (lambda: Around(lambda logits: logits / 0), "not finite"),
        (lambda: Around(lambda logits: {"scores": logits}), "returns NoneType, not logits"),
        (lambda: Around(lambda logits: 3), "returns int, not logits"),
        (lambda: Around(lambda logits: ()), "returns tuple, not logits"),
        (lambda: Around(lambda logits: logits.reshape(2, 5)), "cannot take 4 images at once"),
        (lambda: Around(lambda logits: logits - logits.mean(0)), "differs from its source"),
        (lambda: Around(lambda logits: logits + torch.rand(5)), "differs from its source"),
    ],
)
def test_networks_that_are_no_teachers(
    tmp_path: Path, make: Any, problem: str, own: Callable[..., str]
) -> None:
    check_refused(own(make), tmp_path, problem)


def test_what_is_not_finite_cannot_be_forced(
    tmp_path: Path, own: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: bytes) -> Any:
        def run(feeds: Any) -> dict[str, Any]:
            nothing = np.full((len(feeds["labels"]), 5), np.nan)
            return {"logits": nothing, "loss": nothing[:, 0]}

        return run

    monkeypatch.setattr(classifier, "load_model", broken)
    check_refused(own(tiny.convolutional), tmp_path, "difference is nan", force=True)


def test_an_operator_that_onnx_lacks(
    tmp_path: Path, own: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    uneven = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, 5))
    error = check_refused(own(lambda: uneven), tmp_path, r"cannot be exported to ONNX: .*adaptive_avg_pool2d")
    assert "--size" in error.advice
    assert "Caused by" not in error.problem
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"classes": None}, "does not name its 5 classes"),
        ({"classes": CLASSES[1:]}, "4 class names"),
        ({"size": None}, "does not say the size"),
        ({"size": 2}, "cannot take images of 2 x 2"),
        ({"mean": None}, "how its input is normalised"),
        ({"std": None}, "how its input is normalised"),
        ({"mean": (0.5,)}, "not one number for each"),
        ({"mean": (0.5, 0.5, np.nan)}, "not one number for each"),
        ({"std": (0.2, 0.2, 0)}, "not one number for each"),
        ({"std": (0.2, -0.2, 0.2)}, "not one number for each"),
        ({"mean": (123.7, 116.3, 103.5)}, r"not for values in \[0, 1\]"),
        ({"std": (58.4, 57.1, 57.4)}, r"not for values in \[0, 1\]"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path, settings: dict[str, Any], problem: str, own: Callable[..., str]
) -> None:
    assert check_refused(own(tiny.convolutional), tmp_path, problem, **settings).advice


def test_a_network_of_one_size(tmp_path: Path) -> None:
    folder = tiny.save_pretrained(tmp_path / "network", "vit")
    error = check_refused(str(folder), tmp_path, "cannot take images of 48 x 48 pixels: .*match", size=48)
    assert error.advice == "It was made for 32: leave out --size."


def test_onnx_that_is_missing_names_the_extra_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    spec = TensorSpec("x", "float32", ("batch", 3))
    with pytest.raises(MissingExtraError) as exporting:
        export_network(Network("same", nn.ReLU(), (spec,), (spec,)), (torch.zeros(2, 3),))
    with pytest.raises(MissingExtraError) as pulling:
        read_model(b"", "a source")
    assert [told.value.extra for told in (exporting, pulling)] == ["export", "models"]


def test_a_false_declaration_is_refused() -> None:
    given, wrong = (
        TensorSpec("images", "float32", ("batch", 3)),
        TensorSpec("scores", "float16", ("batch", 3)),
    )
    with pytest.raises(BundleError, match="should have scores"):
        export_network(Network("same", nn.ReLU(), (given,), (wrong,)), (torch.zeros(2, 3),))
