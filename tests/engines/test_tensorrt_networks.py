"""TensorRT builds the networks that the project exports from PyTorch, and a saliency model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_builds import build, precisions
from tiny_models import tiny_description

from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.tensorrt_backend.api import TensorRt

pytestmark = pytest.mark.usefixtures("nothing_on_the_terminal")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The networks that the project exports from PyTorch, in miniature and with random weights."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    import tiny_sam2
    from tiny_networks import save_grounding_dino, tiny_grounding_dino_config

    from fgdd_bench.references.grounded.random_networks import random_detector
    from fgdd_export.graphs.torch_export import Network, export_network
    from fgdd_export.grounded_sam2 import occupancy
    from fgdd_export.grounding_dino import network as grounding_dino
    from fgdd_export.sam2 import network as sam2

    folder = tmp_path_factory.mktemp("exports")

    def export(network: Network, example: Any) -> Bundle:
        described = replace(tiny_description(folder / f"{network.name}.onnx"), name=network.name)
        described = replace(described, inputs=network.inputs, outputs=network.outputs)
        return write_bundle(described, export_network(network, example).model.SerializeToString())

    checkpoint = save_grounding_dino(random_detector(tiny_grounding_dino_config(encoder_layers=1)), folder)
    dino = grounding_dino.load_grounding_dino(str(checkpoint))
    sam = sam2.Sam2(tiny_sam2.tiny_model(), tiny_sam2.SIDE, sam2.MEAN, sam2.STD, ())
    text = grounding_dino.text_network(dino, 12)
    detector = grounding_dino.detector_network(dino, 96, 128, 12)
    prompted = (*grounding_dino.example_tensors(detector), torch.full((2,), 0.3))
    segmenter = occupancy.ForegroundSegmenter(sam2.ImageEncoder(sam), sam2.MaskDecoder(sam), sam.image_size)
    (images,) = sam2.encoder_example(sam)
    return {
        "text encoder": export(text, grounding_dino.example_tensors(text)),
        "detector": export(
            occupancy.finder_network(occupancy.BoxFinder(detector.module, 4), detector.inputs), prompted
        ),
        "segmenter": export(
            occupancy.segmenter_network(segmenter, 4), (images, torch.rand(2, 4, 4), torch.rand(2, 4))
        ),
    }


@pytest.mark.parametrize("name", ["text encoder", "detector", "segmenter"])
def test_an_exported_network_builds(rtx: TensorRt, exports: dict[str, Bundle], name: str) -> None:
    built = build(rtx, exports[name])
    assert set(precisions(built).values()) == {"fp32"}
