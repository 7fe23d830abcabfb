from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from fgdd_fast.errors import SettingsError  # noqa: E402
from fgdd_fast.students.architectures import check_architecture, find_architecture  # noqa: E402


def parameters(name: str, classes: int, size: int) -> int:
    with torch.device("meta"):
        network = find_architecture(name).new(classes, size)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "size", "count"),
    [
        ("convnet3", 10, 32, 320_010),  # as in the papers on dataset condensation
        ("resnet18", 1000, 224, 11_689_512),  # torchvision's
        ("resnet18-small", 10, 32, 11_173_962),  # as usual for CIFAR-10
        ("resnet50", 1000, 224, 25_557_032),
        ("mobilenetv2", 1000, 224, 3_504_872),
        ("mobilenetv2-small", 1000, 32, 3_504_872),
        ("vit-tiny", 1000, 224, 5_717_416),  # DeiT-Ti's
    ],
)
def test_a_network_has_its_published_number_of_parameters(
    name: str, classes: int, size: int, count: int
) -> None:
    assert parameters(name, classes, size) == count


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet1", 2),
        ("convnet3-w8", 33),
        ("convnet5-w8", 32),
        ("resnet18-w4", 40),
        ("resnet18-small-w4", 16),
        ("resnet50-small-w2", 8),
        ("mobilenetv2", 32),
        ("mobilenetv2-small", 16),
        ("vit-tiny", 16),
    ],
)
def test_logits_have_a_column_for_each_class(name: str, size: int) -> None:
    network = find_architecture(name).new(7, size)
    assert network(torch.randn(3, 3, size, size)).shape == (3, 7)


def test_the_small_stem_keeps_the_size() -> None:
    images = torch.randn(1, 3, 32, 32)
    large, small = (find_architecture(f"resnet18{stem}-w2").new(2, 32) for stem in ("", "-small"))
    assert large.layer1(large.maxpool(large.conv1(images))).shape[2:] == (8, 8)
    assert small.layer1(small.maxpool(small.conv1(images))).shape[2:] == (32, 32)


@pytest.mark.parametrize(("size", "patch"), [(224, 16), (128, 16), (64, 8), (32, 4), (48, 4)])
def test_a_transformer_has_patches_that_suit_the_size(size: int, patch: int) -> None:
    with torch.device("meta"):
        network = find_architecture("vit-tiny").new(10, size)
    assert network.patches.kernel_size == (patch, patch)


def test_a_transformer_knows_where_its_patches_are() -> None:
    network = find_architecture("vit-tiny").new(3, 16).eval()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(network(image), network(image.roll(8, dims=2)))


@pytest.mark.parametrize("name", ["", "convnet", "convnet0", "convnet3-w0", "resnet34", "vit-tiny-w8"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="There is no student"):
        find_architecture(name)


@pytest.mark.parametrize(("name", "size"), [("convnet5", 31), ("vit-tiny", 15), ("vit-tiny", 33)])
def test_a_network_refuses_views_that_are_too_small(name: str, size: int) -> None:
    with pytest.raises(SettingsError, match=f"{size} pixels"):
        check_architecture(name, 10, size)
