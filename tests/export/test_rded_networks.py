from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from fgdd_export.classifier.weights import BasicBlock, Bottleneck, ConvNet, ResNet, rded_network  # noqa: E402
from fgdd_fast.errors import BundleError  # noqa: E402


def shuffled(module: Any, seed: int = 0) -> dict[str, Any]:
    """The network's tensors with other values, normalisations included."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: tensor if tensor.ndim == 0 else tensor + 0.1 * torch.rand(tensor.shape, generator=random)
        for name, tensor in module.state_dict().items()
    }


def resnet(
    depths: tuple[int, ...] = (2, 1, 1, 2),
    *,
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
    small: bool = False,
) -> ResNet:
    return ResNet(depths, 8, 3, 5, block=block, small=small)


def filled(tensors: Mapping[str, Any]) -> Any:
    network = rded_network(tensors).module
    network.load_state_dict(tensors)
    return network.eval()


def theirs(name: str) -> str:
    """What transformers' ResNet calls one of torchvision's tensors."""
    place = re.compile(r"layer(\d)\.(\d)\.(conv|bn|downsample\.)(\d)\.(.*)").fullmatch(name)
    if place is None:
        norm = name.replace("bn1.", "resnet.embedder.embedder.normalization.")
        return norm.replace("conv1.", "resnet.embedder.embedder.convolution.").replace("fc.", "classifier.1.")
    stage, index, kind, number, rest = place.groups()
    layer = f"resnet.encoder.stages.{int(stage) - 1}.layers.{index}."
    if kind == "downsample.":
        return layer + "shortcut." + ("convolution." if number == "0" else "normalization.") + rest
    part = "convolution." if kind == "conv" else "normalization."
    return f"{layer}layer.{int(number) - 1}.{part}{rest}"


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_resnets_compute_what_transformers_computes(
    block: type[BasicBlock] | type[Bottleneck], small: bool
) -> None:
    tensors = shuffled(resnet(block=block, small=small))
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[block.expansion * 8 << stage for stage in range(4)],
        depths=[2, 1, 1, 2],
        layer_type="basic" if block is BasicBlock else "bottleneck",
        num_labels=5,
    )
    reference = transformers.ResNetForImageClassification(config).eval()
    if small:
        stem = reference.resnet.embedder.embedder
        stem.convolution = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        reference.resnet.embedder.pooler = torch.nn.Identity()
    reference.load_state_dict({theirs(name): tensor for name, tensor in tensors.items()})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(filled(tensors)(images), reference(images).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("depths", "block", "classes", "small", "name", "parameters"),
    [
        ((2, 2, 2, 2), BasicBlock, 1000, False, "resnet18", 11_689_512),
        ((3, 4, 6, 3), BasicBlock, 1000, False, "resnet34", 21_797_672),
        ((3, 4, 6, 3), Bottleneck, 1000, False, "resnet50", 25_557_032),
        ((3, 4, 23, 3), Bottleneck, 1000, False, "resnet101", 44_549_160),
        ((2, 2, 2, 2), BasicBlock, 10, True, "resnet18_modified", 11_173_962),
    ],
)
def test_published_resnets_are_told(
    depths: tuple[int, ...],
    block: type[BasicBlock] | type[Bottleneck],
    classes: int,
    small: bool,
    name: str,
    parameters: int,
) -> None:
    with torch.device("meta"):
        module = ResNet(depths, 64, 3, classes, block=block, small=small)
        assert sum(parameter.numel() for parameter in module.parameters()) == parameters
        told = rded_network(module.state_dict())
    assert told.architecture == name
    assert told.size == (None if small else 224)
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    assert {key: tensor.shape for key, tensor in told.module.state_dict().items()} == shapes
    if name == "resnet18":
        assert len(shapes) == 122


@pytest.mark.parametrize(
    ("depth", "size", "features"),
    [(3, 32, 2048), (4, 64, 2048), (5, 128, 2048), (6, 128, 512), (5, 224, 6272), (6, 224, 1152)],
)
def test_the_size_of_convnets_is_told(depth: int, size: int, features: int) -> None:
    with torch.device("meta"):
        module = ConvNet(depth, 128, 3, 10, size >> depth)
        told = rded_network(module.state_dict())
    assert module.classifier.in_features == features
    assert (told.architecture, told.size) == (f"conv{depth}", size)
    assert isinstance(told.module, ConvNet)
    if (depth, size) == (3, 32):
        assert sum(parameter.numel() for parameter in module.parameters()) == 320_010


def without(tensors: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_other_tensors_are_told() -> None:
    convnet, residual = ConvNet(3, 4, 3, 10, 4).state_dict(), resnet().state_dict()
    for tensors, problem in (
        ({"features.0.weight": torch.zeros(1)}, r"features\.0\.weight .* no network that is known"),
        (without(convnet, "layers.norm.0.running_mean"), "does not normalise over batches"),
        (without(convnet, "classifier.weight"), r"no tensor 'classifier\.weight'"),
        ({**convnet, "classifier.weight": torch.zeros(10, 4 * 15)}, "no square"),
        ({**convnet, "classifier.weight": torch.zeros(10, 3)}, "no square"),
        ({**convnet, "layers.conv.0.weight": torch.zeros(3)}, "'layers.conv.0.weight' of 4 axes"),
        (without(residual, "fc.weight"), r"no tensor 'fc\.weight'"),
        ({**residual, "conv1.weight": torch.zeros(3)}, r"no tensor 'conv1\.weight' of 4 axes"),
    ):
        with pytest.raises(BundleError, match=problem):
            rded_network(tensors)
