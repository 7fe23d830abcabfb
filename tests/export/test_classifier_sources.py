from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_classifiers as tiny  # noqa: E402
from hostile_pickles import Harmful  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_classifiers import SIDE  # noqa: E402

from fgdd_engines.bundle.files import file_sha256  # noqa: E402
from fgdd_export.classifier.sources import load_classifier  # noqa: E402
from fgdd_export.classifier.weights import IMAGENET_MEAN, IMAGENET_STD, ConvNet, logits_of  # noqa: E402  # noqa: E402
from fgdd_fast.errors import BundleError, FgddError, SettingsError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:Detected pickle")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def images(seed: int = 3) -> Any:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(logits_of(found(images())), logits_of(expected(images())))


# transformers


def test_transformers_without_names_and_processor(tmp_path: Path) -> None:
    names = {0: "LABEL_0", 1: "LABEL_1"}
    folder = tiny.save_pretrained(tmp_path, "vit", id2label=names)
    (folder / "preprocessor_config.json").unlink()
    classifier = load_classifier(str(folder))
    assert (classifier.classes, classifier.mean, classifier.std) == (None, None, None)
    assert classifier.size == SIDE  # of the configuration


def test_more_than_ten_classes_keep_their_order(tmp_path: Path) -> None:
    names = {index: f"class {index}" for index in range(12)}
    folder = tiny.save_pretrained(tmp_path, "convnext", id2label=names)
    assert load_classifier(str(folder)).classes == tuple(names.values())


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    folder = tiny.save_pretrained(tmp_path, "resnet")
    transformers.AutoModelForImageClassification.from_pretrained(folder).half().save_pretrained(folder)
    module = load_classifier(str(folder)).module
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}


def test_other_checkpoints_of_transformers_are_refused(tmp_path: Path) -> None:
    text = transformers.BertConfig(num_hidden_layers=1, hidden_size=16, vocab_size=50, intermediate_size=16)
    text.num_attention_heads = 2
    transformers.BertModel(text).save_pretrained(tmp_path / "text")
    with pytest.raises(BundleError, match="is a bert, which classifies no images"):
        load_classifier(str(tmp_path / "text"))
    headless = transformers.ResNetModel(tiny.CONFIGS["resnet"]())
    headless.save_pretrained(tmp_path / "headless")
    with pytest.raises(BundleError, match=r"lacks .* tensors: classifier"):
        load_classifier(str(tmp_path / "headless"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_classifier(str(tmp_path / "empty"))


def test_hub_names_without_a_network() -> None:
    with pytest.raises(BundleError) as told:
        load_classifier("no-such-checkpoint")
    assert "give the path of a folder" in told.value.advice


# RDED


WRAPPINGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "model": lambda tensors: {"model": tensors, "epoch": 3, "optimizer": {"state": {}}},
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "bare": lambda tensors: tensors,
    "long ago": lambda tensors: {k: v for k, v in tensors.items() if "num_batches" not in k},
    "parallel": lambda tensors: {"model": {f"module.{name}": each for name, each in tensors.items()}},
}


@pytest.mark.parametrize("wrapping", [*WRAPPINGS, "safetensors"])
def test_rded_checkpoints(tmp_path: Path, wrapping: str) -> None:
    network = tiny.randomise(ConvNet(3, 8, 3, 5, 4))
    path = tmp_path / ("mine.safetensors" if wrapping == "safetensors" else "mine.pth")
    if wrapping == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(WRAPPINGS[wrapping](network.state_dict()), path)
    classifier = load_classifier(str(path))
    assert (classifier.size, classifier.classes) == (32, None)
    assert (classifier.mean, classifier.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert classifier.source == {
        "kind": "rded",
        "architecture": "conv3",
        "checkpoint": path.name,
        "weights": {path.name: file_sha256(path)},
    }
    assert_same(classifier.module, network)


def test_bad_files_of_tensors_are_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "mine.pth", tmp_path / "executed"
    tensors = ConvNet(3, 8, 3, 5, 4).state_dict()
    lacking = {name: tensor for name, tensor in tensors.items() if name != "layers.conv.1.bias"}
    for content, problem in (
        ({"model": Harmful(target)}, "pickle that holds more than tensors"),
        ({"model": lacking}, r"lacks 1 of .*layers\.conv\.1\.bias"),
        ({"model": {**tensors, "layers.norm.1.weight": torch.zeros(3)}}, "wrong shape"),
        ({"model": {**tensors, "extra": torch.zeros(3)}}, "no place: extra"),
        ({"model": {}}, "no dictionary of tensors"),
        ({"model": tensors["classifier.bias"], "epoch": 3}, "no dictionary of tensors"),
        ([1, 2], "no dictionary of tensors"),
        (tiny.convolutional(), "pickle that holds more than tensors"),
        (tiny.convolutional().state_dict(), "no network that is known"),
    ):
        torch.save(content, path)
        with pytest.raises(BundleError, match=problem):
            load_classifier(str(path))
    path.write_bytes(pickle.dumps(Harmful(target)))
    with pytest.raises(BundleError):
        load_classifier(str(path))
    assert not target.exists()
    for content in (b"", b"PK\x03\x04 not an archive", b"text"):
        path.write_bytes(content)
        with pytest.raises(BundleError):
            load_classifier(str(path))


def test_files_that_are_nowhere() -> None:
    for name in ("absent.pth", "absent.ts", "folder/absent.safetensors"):
        with pytest.raises(BundleError, match=f"There is no file {name}"):
            load_classifier(name)


# TorchScript


@pytest.mark.parametrize("member", [".py", "/data.pkl", "/constants.pkl"])
def test_bad_torchscript_is_refused(tmp_path: Path, member: str) -> None:
    good, bad, target = tmp_path / "good.ts", tmp_path / "bad.ts", tmp_path / "executed"
    torch.jit.save(torch.jit.script(tiny.convolutional()), good)
    for content in (b"damage here", pickle.dumps(Harmful(target))):
        with zipfile.ZipFile(good) as archive, zipfile.ZipFile(bad, "w") as copy:
            for name in archive.namelist():
                copy.writestr(name, content if name.endswith(member) else archive.read(name))
        with pytest.raises(BundleError, match=r"The TorchScript file .* cannot be loaded"):
            load_classifier(str(bad), trust_code=True)
        assert not target.exists()


class _WritesAFile(torch.nn.Module):
    """Loaded, it makes a file named by its state."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.size = 0

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        self.size = torch.from_file(state[0], shared=True, size=1).numel()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_torchscript_runs_only_where_its_code_is_trusted(tmp_path: Path) -> None:
    file, written = tmp_path / "evil.pt", tmp_path / "written"
    torch.jit.save(torch.jit.script(_WritesAFile(str(written))), file)
    with pytest.raises(SettingsError, match="can write files when it is loaded"):
        load_classifier(str(file))
    assert not written.exists()
    load_classifier(str(file), trust_code=True)
    assert written.exists()


# Functions


def test_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets").mkdir()
    (tmp_path / "own_nets" / "small.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3, 2))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    classifier = load_classifier("own_nets.small:make")
    assert sys.path == path
    assert classifier.source == {
        "kind": "function",
        "checkpoint": "own_nets.small:make",
        "architecture": "Sequential",
    }
    tensors = {"1.weight": torch.full((2, 3), 7.0), "1.bias": torch.zeros(2)}
    save_file(tensors, tmp_path / "weights.safetensors")
    filled = load_classifier("own_nets.small:make@weights.safetensors")
    assert filled.module.state_dict()["1.weight"].mean() == 7
    assert filled.source["weights"] == {"weights.safetensors": file_sha256(tmp_path / "weights.safetensors")}
    save_file({"1.weight": torch.zeros(2, 3)}, tmp_path / "weights.safetensors")
    with pytest.raises(BundleError, match="lacks 1 of"):
        load_classifier("own_nets.small:make@weights.safetensors")
    with pytest.raises(BundleError, match=r"no checkpoint|cannot be loaded"):
        load_classifier("own_nets.small:make@absent.pth")


def test_bad_functions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("out of ideas\nsecond line")

    own = tiny.module_of(fails=fails, number=lambda: 3, needs=lambda size: size)
    own.constant = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_networks", own)
    (tmp_path / "broken_nets.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "needy_nets.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for checkpoint, problem in (
        ("nowhere_nets:make", "no Python module 'nowhere_nets'"),
        ("own_networks.deep:make", "own_networks.deep"),
        ("own_networks:absent", "no function 'absent'"),
        ("own_networks:constant", "no function 'constant'"),
        ("own_networks:fails", "failed: RuntimeError: out of ideas$"),
        ("own_networks:number", "returns a int, not a torch.nn.Module"),
        ("own_networks:needs", "failed: TypeError"),
        ("broken_nets:make", "cannot be imported: ZeroDivisionError"),
        ("needy_nets:make", "cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
    ):
        with pytest.raises(BundleError, match=problem):
            load_classifier(checkpoint)


# timm and torchvision


def make(name: str, published: bool, classes: int) -> Any:
    if name not in ("small", "small.in1k"):
        raise RuntimeError(f"Unknown model ({name})")
    network = tiny.convolutional(classes=classes)
    return network if published else tiny.randomise(network, seed=5)


def weights_of(name: str) -> Any:
    make(name, True, 7)
    transforms = SimpleNamespace(crop_size=[40], mean=list(tiny.MEAN), std=list(tiny.STD))
    weights = SimpleNamespace(meta={"categories": list("abcdefg")}, transforms=lambda: transforms)
    return SimpleNamespace(DEFAULT=weights)


CONFIG = {"input_size": (3, 40, 40), "mean": tiny.MEAN, "std": tiny.STD}
PACKAGES: dict[str, dict[str, Any]] = {
    "timm": {
        "create_model": lambda name, pretrained, num_classes=7: make(name, pretrained, num_classes),
        "data": SimpleNamespace(resolve_model_data_config=lambda model: CONFIG),
    },
    "torchvision": {
        "models": SimpleNamespace(
            get_model=lambda name, weights, num_classes=7: make(name, weights is not None, num_classes),
            get_model_weights=weights_of,
        )
    },
}


@pytest.mark.parametrize(("kind", "name"), [("timm", "small.in1k"), ("torchvision", "small")])
def test_networks_of_packages(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(kind)
    vars(module).update(PACKAGES[kind])
    monkeypatch.setitem(sys.modules, kind, module)
    published = load_classifier(f"{kind}:{name}")
    assert published.size == 40
    assert (tuple(published.mean or ()), tuple(published.std or ())) == (tiny.MEAN, tiny.STD)
    assert published.classes == (tuple("abcdefg") if kind == "torchvision" else None)
    assert published.source == {"kind": kind, "checkpoint": name, "architecture": name}
    assert_same(published.module, tiny.convolutional(classes=7))
    path = tmp_path / "weights.pth"
    for count in (7, 3):  # as published, and with a head of one's own
        network = tiny.randomise(tiny.convolutional(classes=count), seed=9)
        torch.save(network.state_dict(), path)
        own = load_classifier(f"{kind}:{name}@{path}")
        assert own.classes is None
        assert own.source["weights"] == {"weights.pth": file_sha256(path)}
        assert_same(own.module, network)
    torch.save({"other": torch.zeros(3)}, path)
    with pytest.raises(BundleError, match="lacks"):
        load_classifier(f"{kind}:{name}@{path}")
    with pytest.raises(BundleError, match=f"{kind} cannot make large: .*Unknown model") as told:
        load_classifier(f"{kind}:large")
    assert f"{kind}:large@FILE" in told.value.advice


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_packages_that_are_absent_or_broken(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FgddError, match=f"package '{package}' is not installed") as told:
        load_classifier(f"{package}:resnet18")
    assert told.value.advice == f"Run: pip install {package}"
    monkeypatch.delitem(sys.modules, package)
    (tmp_path / f"{package}.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FgddError, match=f"'{package}' cannot be imported: RuntimeError: operator nms"):
        load_classifier(f"{package}:resnet18")
