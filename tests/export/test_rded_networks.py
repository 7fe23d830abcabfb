from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_classifiers as tiny  # noqa: E402

from fgdd_export.classifier.weights import BasicBlock, Bottleneck, ConvNet, ResNet, rded_network  # noqa: E402
from fgdd_fast.errors import BundleError  # noqa: E402


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
    tensors = tiny.randomise(ResNet((2, 1, 1, 2), 8, 3, 5, block=block, small=small)).state_dict()
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
    network = rded_network(tensors).module.eval()
    network.load_state_dict(tensors)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images).logits, rtol=1e-4, atol=1e-4)


def published(*depths: int, bottleneck: bool = False, classes: int = 1000, small: bool = False) -> ResNet:
    return ResNet(depths, 64, 3, classes, block=Bottleneck if bottleneck else BasicBlock, small=small)


@pytest.mark.parametrize(
    ("make", "name", "size"),
    [
        (lambda: published(2, 2, 2, 2), "resnet18", 224),
        (lambda: published(3, 4, 6, 3), "resnet34", 224),
        (lambda: published(3, 4, 6, 3, bottleneck=True), "resnet50", 224),
        (lambda: published(3, 4, 23, 3, bottleneck=True), "resnet101", 224),
        (lambda: published(2, 2, 2, 2, classes=10, small=True), "resnet18_modified", None),
        *(
            (lambda depth=depth, size=size: ConvNet(depth, 128, 3, 10, size >> depth), f"conv{depth}", size)
            for depth, size in ((3, 32), (4, 64), (5, 128), (6, 128), (5, 224), (6, 224))
        ),
    ],
)
def test_published_networks_are_told(make: Callable[[], Any], name: str, size: int | None) -> None:
    with torch.device("meta"):
        module = make()
        told = rded_network(module.state_dict())
    assert (told.architecture, told.size, type(told.module)) == (name, size, type(module))
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    assert {key: tensor.shape for key, tensor in told.module.state_dict().items()} == shapes


def without(tensors: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_other_tensors_are_told() -> None:
    convnet, residual = (net.state_dict() for net in (ConvNet(3, 4, 3, 10, 4), published(1, 1, 1, 1)))
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
