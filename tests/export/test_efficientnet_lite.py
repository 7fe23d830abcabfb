from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from fgdd_export.catalogue.efficientnet_lite import LITE0, build_efficientnet_lite0
from fgdd_export.graphs.graph import Array, run_model, serialise
from fgdd_export.graphs.parity import drawn_images
from fgdd_fast.errors import BundleError


class PlainNetwork:
    """EfficientNet-lite0 as plain NumPy in float64: batch normalisation as such, padding from its formula."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights

    def layer(self, x: Array, weight: str, norm: str, stride: int = 1, clip: bool = True) -> Array:
        kernel = self.weights[f"{weight}.weight"].astype(np.float64)
        size = kernel.shape[-1]
        pads = [(0, 0), (0, 0)]
        for length in x.shape[2:]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads.append((total // 2, total - total // 2))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), (size, size), axis=(2, 3))
        windows = windows[:, :, ::stride, ::stride]
        depthwise = kernel.shape[1] == 1
        equation = "nchwij,cij->nchw" if depthwise else "nchwij,ocij->nohw"
        x = np.einsum(equation, windows, kernel[:, 0] if depthwise else kernel, optimize=True)
        scale, shift, mean, variance = (
            self.weights[f"{norm}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(variance + 1e-3) * scale + shift
        return x.clip(0, 6) if clip else x

    def __call__(self, images: NDArray[np.uint8]) -> tuple[Array, Array]:
        x = ((images.astype(np.float64) - 127) / 128).transpose(0, 3, 1, 2)
        x = self.layer(x, "_conv_stem", "_bn0", stride=2)
        index = 0
        for stage in LITE0:
            for stride in [stage.stride] + [1] * (stage.repeats - 1):
                name, before = f"_blocks.{index}", x
                if stage.expansion > 1:
                    x = self.layer(x, f"{name}._expand_conv", f"{name}._bn0")
                x = self.layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride)
                x = self.layer(x, f"{name}._project_conv", f"{name}._bn2", clip=False)
                x = x + before if x.shape == before.shape else x
                index += 1
        features = self.layer(x, "_conv_head", "_bn1").mean(axis=(2, 3))
        return features, features @ self.weights["_fc.weight"].T + self.weights["_fc.bias"]


def random_weights(seed: int = 0) -> dict[str, Array]:
    """Weights of the right names and shapes, scaled so that values neither vanish nor all saturate."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}

    def add(weight: str, norm: str, shape: tuple[int, ...]) -> None:
        weights[f"{weight}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        for part, low, high in (
            ("weight", 0.8, 1.2),
            ("bias", 0, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 2),
        ):
            weights[f"{norm}.{part}"] = rng.uniform(low, high, shape[0]).astype(np.float32)
        weights[f"{norm}.num_batches_tracked"] = np.array(5)

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels, index = 32, 0
    for stage in LITE0:
        for _ in range(stage.repeats):
            name, inner = f"_blocks.{index}", channels * stage.expansion
            if stage.expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", (inner, channels, 1, 1))
            add(f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, stage.kernel, stage.kernel))
            add(f"{name}._project_conv", f"{name}._bn2", (stage.channels, inner, 1, 1))
            channels, index = stage.channels, index + 1
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    weights["_fc.weight"] = rng.normal(0, 0.05, (7, 1280)).astype(np.float32)
    weights["_fc.bias"] = rng.normal(size=7).astype(np.float32)
    return weights


@pytest.fixture(scope="module")
def random_model() -> tuple[PlainNetwork, bytes]:
    weights = random_weights()
    return PlainNetwork(weights), serialise(build_efficientnet_lite0(weights))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (45, 70)])
def test_graph_is_the_network_at_any_size(
    random_model: tuple[PlainNetwork, bytes], height: int, width: int
) -> None:
    network, model = random_model
    images = drawn_images(height, width)[:2]
    features, logits = network(images)
    found = run_model(model, {"images": images})
    assert features.std() > 0.1
    np.testing.assert_allclose(found["features"], features, atol=1e-4)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)


def test_other_checkpoints_are_refused() -> None:
    weights = random_weights()
    with pytest.raises(BundleError, match=r"_fc\.extra"):
        build_efficientnet_lite0({**weights, "_fc.extra": np.zeros(3)})
    del weights["_blocks.7._bn1.running_var"]
    with pytest.raises(BundleError, match=r"no tensor '_blocks\.7\._bn1\.running_var'"):
        build_efficientnet_lite0(weights)


def test_drawn_images_never_change() -> None:
    digest = hashlib.sha256(drawn_images(224, 224).tobytes()).hexdigest()
    assert digest == "bae16302c51e7a053489d4009fafd2bc2cd187f359b5ed724fe666c60dd444fb"
