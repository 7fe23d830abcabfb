from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_convolutions as tiny
import tiny_models

torch = pytest.importorskip("torch")

from fgdd_bench.references.onnx_network import first_convolution_input, pytorch_network  # noqa: E402
from fgdd_engines.bundle.bundle import Bundle  # noqa: E402
from fgdd_export.graphs.graph import run_model  # noqa: E402
from fgdd_fast.errors import SettingsError  # noqa: E402


def images_and_labels(side: int, count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return {"images": images, "labels": np.arange(count, dtype=np.int32)}


@pytest.mark.parametrize("make", [tiny.inverted_residuals, tiny.basic_blocks])
def test_the_network_gives_what_the_graph_gives(make: Callable[[Path], Bundle], tmp_path: Path) -> None:
    bundle, feeds = make(tmp_path), images_and_labels(tiny.SIDE)
    network = pytorch_network(bundle, list(feeds), ["logits", "loss"], height=tiny.SIDE, width=tiny.SIDE)
    expected = run_model(bundle.graph(), feeds)
    with torch.inference_mode():
        logits, loss = network(*(torch.from_numpy(array) for array in feeds.values()))
    np.testing.assert_allclose(logits.numpy(), expected["logits"], atol=1e-4)
    np.testing.assert_allclose(loss.numpy(), expected["loss"], atol=1e-4)


def test_a_network_may_begin_at_its_first_convolution(tmp_path: Path) -> None:
    bundle, feeds = tiny.inverted_residuals(tmp_path), images_and_labels(tiny.SIDE)
    planes = first_convolution_input(bundle)
    sizes = {"height": tiny.SIDE, "width": tiny.SIDE}
    front = pytorch_network(bundle, ["images"], [planes], **sizes)
    back = pytorch_network(bundle, [planes], ["logits"], **sizes)
    with torch.inference_mode():
        normalised = front(torch.from_numpy(feeds["images"]))
        logits = back(normalised)
    assert normalised.shape == (3, 3, tiny.SIDE, tiny.SIDE)
    np.testing.assert_allclose(logits.numpy(), run_model(bundle.graph(), feeds)["logits"], atol=1e-4)


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    bundle = tiny.mixing(tmp_path)
    with pytest.raises(SettingsError, match="lacks the operator Softmax of 'teacher'"):
        pytorch_network(bundle, ["images"], ["logits"], height=tiny.SIDE, width=tiny.SIDE)


def test_an_input_that_is_not_given_is_named(tmp_path: Path) -> None:
    bundle = tiny_models.tiny_bundle(tmp_path)
    with pytest.raises(SettingsError, match="takes 'labels', which is not given"):
        pytorch_network(bundle, ["images"], ["loss"], height=tiny_models.SIDE, width=tiny_models.SIDE)
