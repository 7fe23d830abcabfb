"""PyTorch behind the interface of all engines: the numbers of the graphs that are exported from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_sam2  # noqa: E402
from tiny_models import tiny_description  # noqa: E402
from tiny_networks import save_grounding_dino, tiny_grounding_dino_config  # noqa: E402

from fgdd_bench.references.grounded.random_networks import random_detector  # noqa: E402
from fgdd_engines.base import Array, TensorSpec  # noqa: E402
from fgdd_engines.bundle.bundle import write_bundle  # noqa: E402
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine  # noqa: E402
from fgdd_engines.pytorch_reference import PyTorchEngine  # noqa: E402
from fgdd_export.graphs.graph import serialise  # noqa: E402
from fgdd_export.graphs.torch_export import Network, export_network  # noqa: E402
from fgdd_export.grounding_dino.network import (  # noqa: E402
    detector_network,
    example_tensors,
    load_grounding_dino,
    text_network,
)
from fgdd_export.sam2.network import (  # noqa: E402
    Sam2,
    decoder_example,
    decoder_network,
    encoder_example,
    encoder_network,
)
from fgdd_fast.errors import EngineError  # noqa: E402

BATCH = 3
SIDE = 16
CLASSES = 5
IMAGES = TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))
LABELS = TensorSpec("labels", "int32", ("batch",))
LOGITS = TensorSpec("logits", "float32", ("batch", CLASSES))
LOSS = TensorSpec("loss", "float32", ("batch",))


class Classifier(torch.nn.Module):
    """Two convolutions and a linear layer; takes bytes, gives logits and losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.second = torch.nn.Conv2d(16, 32, 3, stride=2)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(32, CLASSES)

    def forward(self, images: Any, labels: Any) -> tuple[Any, Any]:
        planes = images.to(torch.float32).permute(0, 3, 1, 2) / 128 - 1
        maps = self.second(self.first(planes).relu()).relu()
        logits = self.head(self.dropout(maps.mean((2, 3)))) * 4
        wanted = logits.gather(1, labels.to(torch.int64)[:, None])[:, 0]
        return logits, logits.logsumexp(1) - wanted


def classifier() -> Network:
    return Network("classifier", Classifier().eval(), (IMAGES, LABELS), (LOGITS, LOSS))


def feeds_of(network: Network, axes: dict[str, int], seed: int = 0) -> dict[str, Array]:
    """Random bytes, small numbers; ones where a number counts or masks something."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for spec in network.inputs:
        shape = [axes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        if spec.dtype == "uint8":
            feeds[spec.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        elif spec.dtype == "int32":
            feeds[spec.name] = rng.integers(1, CLASSES, shape, dtype=np.int32)
        elif spec.name.endswith("mask"):
            feeds[spec.name] = np.ones(shape, np.float32)
        else:
            feeds[spec.name] = rng.uniform(0, 1, shape).astype(np.float32)
    return feeds


def opened(network: Network, axes: dict[str, int] | None = None, **settings: Any) -> PyTorchEngine:
    return PyTorchEngine(
        network.module, network.inputs, network.outputs, axes or {"batch": BATCH}, **settings
    )


def exported(network: Network, example: Any, folder: Path, axes: dict[str, int]) -> OnnxRuntimeEngine:
    """The same network as an exported graph in ONNX Runtime."""
    description = replace(
        tiny_description(folder / "network.onnx"), inputs=network.inputs, outputs=network.outputs
    )
    model = serialise(export_network(network, example).model)
    return OnnxRuntimeEngine(write_bundle(description, model), axes, 1)


def sam2() -> Sam2:
    return Sam2(tiny_sam2.tiny_model(), tiny_sam2.SIDE, (0.5,) * 3, (0.25,) * 3, ())


def sam2_encoder(folder: Path) -> tuple[Network, Any]:
    sam = sam2()
    return encoder_network(sam), encoder_example(sam)


def sam2_decoder(folder: Path) -> tuple[Network, Any]:
    sam = sam2()
    return decoder_network(sam), decoder_example(sam)


def small_classifier(folder: Path) -> tuple[Network, Any]:
    images = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    return classifier(), (images, torch.zeros(2, dtype=torch.int32))


def grounding_dino_text(folder: Path) -> tuple[Network, Any]:
    network = text_network(load_grounding_dino(str(checkpoint(folder))), 12)
    return network, example_tensors(network)


def grounding_dino_image(folder: Path) -> tuple[Network, Any]:
    network = detector_network(load_grounding_dino(str(checkpoint(folder))), 96, 128, 12)
    return network, example_tensors(network)


def checkpoint(folder: Path) -> Path:
    return save_grounding_dino(random_detector(tiny_grounding_dino_config()), folder)


@pytest.mark.parametrize(
    "make", [small_classifier, sam2_encoder, sam2_decoder, grounding_dino_text, grounding_dino_image]
)
def test_the_numbers_are_those_of_the_exported_graph(
    tmp_path: Path, make: Callable[[Path], tuple[Network, Any]]
) -> None:
    network, example = make(tmp_path)
    named = {axis for spec in network.inputs for axis in spec.shape if isinstance(axis, str)}
    axes = {"batch": 2, "boxes": 3}
    axes = {axis: axes[axis] for axis in named}
    feeds = feeds_of(network, axes)
    with exported(network, example, tmp_path, axes) as graph, opened(network, axes) as engine:
        assert (engine.inputs, engine.outputs) == (graph.inputs, graph.outputs)
        expected, found = graph.run(feeds), engine.run(feeds)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close_and_not_the_same(precision: Any) -> None:
    network = classifier()
    feeds = feeds_of(network, {"batch": BATCH})
    with opened(network) as engine:
        exact = engine.run(feeds)
    with opened(network, precision=precision) as engine:
        found = engine.run(feeds)
        assert engine.arithmetic.endswith(f", CPU, {precision}")
    assert found["logits"].dtype == np.float32
    difference = np.abs(found["logits"] - exact["logits"]).max()
    assert 0 < difference < 0.05 * np.abs(exact["logits"]).max()


def test_another_layout_gives_the_same_up_to_rounding() -> None:
    network = classifier()
    feeds = feeds_of(network, {"batch": BATCH})
    with opened(network) as engine:
        expected = engine.run(feeds)
    with opened(network, channels_last=True) as engine:
        assert engine.arithmetic.endswith("channels last")
        assert network.module.first.weight.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(engine.run(feeds)["logits"], expected["logits"], rtol=0, atol=1e-5)


def test_compiled_kernels_are_asked_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not made here: that takes half a minute and a compiler."""
    asked = []

    def compile_(network: Any, **settings: Any) -> Any:
        asked.append(settings)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    with opened(classifier(), compile=True) as engine:
        assert engine.arithmetic.endswith("compiled")
    assert asked == [{"dynamic": False, "options": {"freezing": True}}]


def test_several_threads_may_run() -> None:
    network = classifier()
    feeds = [feeds_of(network, {"batch": BATCH}, seed) for seed in range(6)]
    with opened(network) as engine:
        expected = [engine.run(feed)["loss"] for feed in feeds]
        with ThreadPoolExecutor(4) as callers:
            found = list(callers.map(lambda feed: engine.run(feed, ["loss"])["loss"], feeds * 5))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected * 5, strict=True))


def test_a_call_uses_the_threads_it_was_given() -> None:
    seen = []

    class Asks(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            seen.append(torch.get_num_threads())
            return images

    network = Network("asks", Asks().eval(), (IMAGES,), (IMAGES,))
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            with opened(network, threads=threads) as engine:
                engine.run(feeds_of(network, {"batch": BATCH}))
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 1]


def test_results_share_nothing_with_the_network_or_the_feeds() -> None:
    class Same(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return images

    network = Network("same", Same().eval(), (IMAGES,), (IMAGES,))
    feeds = feeds_of(network, {"batch": BATCH})
    feeds["images"].setflags(write=False)
    with opened(network) as engine:
        found = engine.run(feeds)["images"]
    assert np.array_equal(found, feeds["images"])
    assert found.flags.writeable
    assert not np.shares_memory(found, feeds["images"])


def test_only_the_outputs_wanted_come_in_their_order() -> None:
    network = classifier()
    feeds = feeds_of(network, {"batch": BATCH})
    with opened(network) as engine:
        assert list(engine.run(feeds, ["loss"])) == ["loss"]
        assert list(engine.run(feeds, ["loss", "logits"])) == ["loss", "logits"]


class TestRefusals:
    def test_wrong_feeds(self) -> None:
        network = classifier()
        with opened(network) as engine, pytest.raises(EngineError, match="'images' takes uint8"):
            engine.run(feeds_of(network, {"batch": BATCH + 1}))

    @pytest.mark.parametrize("axes", [{}, {"batch": 0}, {"batch": 1, "height": 4}])
    def test_wrong_axes(self, axes: dict[str, int]) -> None:
        network = classifier()
        with pytest.raises(EngineError, match="'Classifier'"):
            PyTorchEngine(network.module, network.inputs, network.outputs, axes)

    def test_a_network_in_training_mode(self) -> None:
        with pytest.raises(EngineError, match=r"'Classifier' is in training mode\. Call eval"):
            opened(Network("classifier", Classifier().train(), (IMAGES, LABELS), (LOGITS, LOSS)))

    @pytest.mark.parametrize(
        ("outputs", "problem"),
        [
            ((TensorSpec("logits", "float32", ("batch", 7)), LOSS), r"should be \[3, 7\].*gave \[3, 5\]"),
            ((LOGITS, LOSS, TensorSpec("mask", "uint8", ("batch",))), "gave 2 outputs, not 3"),
        ],
    )
    def test_outputs_that_are_not_as_declared(self, outputs: Any, problem: str) -> None:
        network = Network("classifier", Classifier().eval(), (IMAGES, LABELS), outputs)
        with opened(network) as engine, pytest.raises(EngineError, match=problem):
            engine.run(feeds_of(network, {"batch": BATCH}))

    def test_a_network_that_fails(self) -> None:
        network = classifier()
        feeds = feeds_of(network, {"batch": BATCH})
        feeds["labels"][:] = CLASSES
        with opened(network) as engine, pytest.raises(EngineError, match=r"cannot run 'Classifier': \S"):
            engine.run(feeds)

    def test_a_gpu_that_is_not_there(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        with pytest.raises(EngineError, match=r"no GPU.*fgdd-fast doctor"):
            opened(classifier(), device="cuda")

    def test_a_closed_engine(self) -> None:
        network = classifier()
        engine = opened(network)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(feeds_of(network, {"batch": BATCH}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu(precision: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that PyTorch can use")
    network = classifier()
    feeds = feeds_of(network, {"batch": BATCH})
    with opened(network) as engine:
        expected = engine.run(feeds)["logits"]
    with opened(network, device="cuda", precision=precision) as engine:
        found = engine.run(feeds)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol={"fp32": 1e-4, "fp16": 5e-2}[precision])
