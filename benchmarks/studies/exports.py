"""What does exporting each network take, and how does ONNX Runtime compare with eager PyTorch?

    python -m benchmarks.studies.exports --only NAME --json exports.json

Weights are random, at the published architectures' sizes: times, sizes and differences do not depend on what
the weights know. Both run the same inputs with the same number of threads, in turns. Needs the extras
`export` and `cpu`, and 10 GB of memory for the largest network. With `--cheaper`, what smaller inputs and a
fixed batch save of Grounded SAM 2: each beside today's, in turns. Kept results: `exports.json`,
`exports-detectors.json`, `exports-cheaper.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from benchmarks.studies.study import Study, number_option, study
from fgdd_bench.references.grounded.random_networks import (
    IMAGE_MEAN,
    IMAGE_STD,
    detector_config,
    random_detector,
    random_segmenter,
    segmenter_config,
)
from fgdd_engines.base import TensorSpec
from fgdd_export.classifier.network import FromImages, Normalisation
from fgdd_export.graphs.graph import load_model, serialise
from fgdd_export.graphs.torch_export import Network, export_network
from fgdd_export.grounded_sam2.occupancy import (
    BoxFinder,
    ForegroundSegmenter,
    finder_network,
    joint_network,
    segmenter_network,
)
from fgdd_export.grounding_dino.network import GroundingDino, detector_network, text_network
from fgdd_export.sam2.network import ImageEncoder, MaskDecoder, Sam2, decoder_network, encoder_network

CANVAS = 800
TOKENS = 32
BOXES = 8
SIDE = 1024
VIEW = 224
CLASSES = 1000


# Of each row: millions of parameters; tracing, slimming and checking; the ONNX file; runs at batch 1, and the
# median of the ratios of neighbouring runs.
COLUMNS = {"network": "", "parameters": ".1f", "export_seconds": ".0f", "megabytes": ".0f"}
COLUMNS |= {"nodes_before": "d", "nodes": "d"}
COLUMNS |= dict.fromkeys(("onnx_per_second", "eager_per_second", "ratio"), ".2f")
# Of each cheaper way: 10^9 multiplications; processor seconds of a run in ONNX Runtime, and the median of
# the ratios to today's in the same turn.
CHEAPER_COLUMNS = {"half": "", "way": "", "gmac": ".1f", "nodes_before": "d", "nodes": "d"}
CHEAPER_COLUMNS |= {"seconds": ".2f", "share_of_today": ".0%"}


def _detector(size: str) -> GroundingDino:
    model = random_detector(detector_config(size))
    return GroundingDino(model, "", IMAGE_MEAN, IMAGE_STD, CANVAS, 1333, ())


def _segmenter(size: str) -> Sam2:
    return Sam2(random_segmenter(segmenter_config(size)), SIDE, IMAGE_MEAN, IMAGE_STD, ())


def _finder(size: str, canvas: int = CANVAS) -> tuple[BoxFinder, Network]:
    network = detector_network(_detector(size), canvas, canvas, TOKENS)
    return BoxFinder(network.module, BOXES), network


def _foreground_segmenter(size: str, side: int = SIDE) -> ForegroundSegmenter:
    sam = _segmenter(size).at_size(side)
    return ForegroundSegmenter(ImageEncoder(sam), MaskDecoder(sam), side)


def _joint(size: str) -> Network:
    finder, network = _finder(size)
    return joint_network(finder, _foreground_segmenter(size), network.inputs)


def _box_finder(size: str, canvas: int = CANVAS) -> Network:
    finder, network = _finder(size, canvas)
    return finder_network(finder, network.inputs)


def _segmenter_of_boxes(size: str, side: int = SIDE) -> Network:
    return segmenter_network(_foreground_segmenter(size, side), BOXES)


def _with_one_image(network: Network) -> Network:
    """The same with a batch of 1 in place of any."""

    def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        shapes = [tuple(1 if axis == "batch" else axis for axis in spec.shape) for spec in specs]
        return tuple(replace(spec, shape=shape) for spec, shape in zip(specs, shapes, strict=True))

    return replace(network, inputs=fixed(network.inputs), outputs=fixed(network.outputs))


def _teacher(model_class: Any, config_class: Any, **settings: Any) -> Network:
    model = model_class(config_class(num_labels=CLASSES, **settings))
    return Network(
        "classifier",
        FromImages(model, Normalisation(IMAGE_MEAN, IMAGE_STD)).eval(),
        (TensorSpec("images", "uint8", ("batch", VIEW, VIEW, 3)),),
        (TensorSpec("logits", "float32", ("batch", CLASSES)),),
    )


RESNET_18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
NETWORKS: Mapping[str, Callable[[], Network]] = {
    "grounding-dino-tiny text": lambda: text_network(_detector("tiny"), TOKENS),
    "grounding-dino-tiny image": lambda: detector_network(_detector("tiny"), CANVAS, CANVAS, TOKENS),
    "grounding-dino-base image": lambda: detector_network(_detector("base"), CANVAS, CANVAS, TOKENS),
    "sam2.1-hiera-tiny encoder": lambda: encoder_network(_segmenter("tiny")),
    "sam2.1-hiera-tiny decoder": lambda: decoder_network(_segmenter("tiny")),
    "sam2.1-hiera-small encoder": lambda: encoder_network(_segmenter("small")),
    "sam2.1-hiera-base-plus encoder": lambda: encoder_network(_segmenter("base-plus")),
    "sam2.1-hiera-large encoder": lambda: encoder_network(_segmenter("large")),
    "grounded-sam2 (tiny, tiny)": lambda: _joint("tiny"),
    "grounded-sam2 (tiny, tiny), box finder": lambda: _box_finder("tiny"),
    "grounded-sam2 (tiny, tiny), segmenter": lambda: _segmenter_of_boxes("tiny"),
    "teacher resnet-18": lambda: _teacher(ResNetForImageClassification, ResNetConfig, **RESNET_18),
    "teacher convnext-tiny": lambda: _teacher(ConvNextForImageClassification, ConvNextConfig),
    "teacher vit-base": lambda: _teacher(ViTForImageClassification, ViTConfig, attn_implementation="eager"),
}
# Today's first.
CHEAPER: Mapping[str, Mapping[str, Callable[[], Network]]] = {
    "segmenter": {
        **{str(side): partial(_segmenter_of_boxes, "tiny", side) for side in (SIDE, 768, 512)},
        "batch of 1": lambda: _with_one_image(_segmenter_of_boxes("tiny")),
    },
    "box finder": {
        **{f"{side} x {side}": partial(_box_finder, "tiny", side) for side in (CANVAS, 640)},
        "batch of 1": lambda: _with_one_image(_box_finder("tiny")),
    },
}
SORTED = ("scores", "occupancy")  # an output that ranks or thresholds: equal inputs may fall either side


@study
@click.option("--only", multiple=True, type=click.Choice(list(NETWORKS)), help="These networks; else all.")
@click.option("--cheaper", is_flag=True, help="Cheaper ways of Grounded SAM 2 beside today's instead.")
@number_option("--repeats", 3)
def main(study: Study, only: tuple[str, ...], cheaper: bool, repeats: int) -> None:
    """Export the networks, and run each in ONNX Runtime and in eager PyTorch."""
    rows: list[dict[str, Any]] = []
    names = only or tuple(NETWORKS)
    facts = {"weights": "random", "canvas": CANVAS, "tokens": TOKENS, "boxes": BOXES, "repeats": repeats}
    if cheaper:
        for half in study.track(tuple(CHEAPER), "Halves of Grounded SAM 2"):
            rows += compare_ways(half, CHEAPER[half], repeats)
            study.report(rows, CHEAPER_COLUMNS, show=half == tuple(CHEAPER)[-1], **facts)
        return
    for name in study.track(names, "Networks"):
        rows.append(measure(name, NETWORKS[name](), repeats))
        last = len(rows) == len(names)
        study.report(rows, COLUMNS, show=last, threads=torch.get_num_threads(), **facts)


def measure(name: str, network: Network, repeats: int) -> dict[str, Any]:
    """Export a network and run it in both, and return a row of the result."""
    parameters = sum(weights.numel() for weights in network.module.parameters()) / 1e6
    exported = export_network(network, inputs_of(network, batch=2))
    model = serialise(exported.model)
    row = {
        "network": name,
        "parameters": round(parameters, 1),
        "export_seconds": round(exported.seconds, 1),
        "megabytes": round(len(model) / 1e6, 1),
        "nodes_before": exported.nodes_before,
        "nodes": exported.nodes,
    }
    del exported
    run = load_model(model)
    del model
    example = inputs_of(network, batch=1)
    feeds = {spec.name: tensor.numpy() for spec, tensor in zip(network.inputs, example, strict=True)}
    onnx, eager = list[float](), list[float]()
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        found = run(feeds)
        onnx.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        with torch.inference_mode():
            expected = network.module(*example)
        eager.append(time.perf_counter() - begin)
    del onnx[0], eager[0]  # which warmed up
    return {
        **row,
        "onnx_per_second": 1 / median(onnx),
        "eager_per_second": 1 / median(eager),
        "ratio": median(slow / quick for quick, slow in zip(onnx, eager, strict=True)),
        "largest_difference": _largest_difference(network, found, expected),
    }


def compare_ways(
    half: str, ways: Mapping[str, Callable[[], Network]], repeats: int
) -> Iterator[dict[str, Any]]:
    """Export a network in several ways, run all in turns on one core, and give a row for each."""
    rows, runs = [], []
    for way, build in ways.items():
        network = build()
        example = inputs_of(network, batch=1)
        network.module.requires_grad_(False)
        # As plain products, which the counter knows; it does not know PyTorch's fused attention on a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network.module(*example)
        fixed = isinstance(network.inputs[0].shape[0], int)
        exported = export_network(network, example if fixed else inputs_of(network, batch=2))
        row = {"half": half, "way": way, "gmac": counter.get_total_flops() / 2e9}
        rows.append({**row, "nodes_before": exported.nodes_before, "nodes": exported.nodes})
        feeds = {spec.name: tensor.numpy() for spec, tensor in zip(network.inputs, example, strict=True)}
        runs.append((load_model(serialise(exported.model), threads=1), feeds))
    seconds = np.zeros((repeats + 1, len(runs)))
    for turn in range(repeats + 1):
        for place, (run, feeds) in enumerate(runs):
            begin = time.process_time()
            run(feeds)
            seconds[turn, place] = time.process_time() - begin
    shares = np.median(seconds[1:] / seconds[1:, :1], axis=0)  # the first turn warmed up
    for row, share, own in zip(rows, shares, np.median(seconds[1:], axis=0), strict=True):
        yield {**row, "seconds": float(own), "share_of_today": float(share)}


def inputs_of(network: Network, batch: int) -> tuple[torch.Tensor, ...]:
    """Return random inputs: the image filling the canvas, every token part of the prompt."""
    torch.manual_seed(0)
    lengths = {"batch": batch, "boxes": BOXES}
    box_scale = SIDE if network.name == "sam2_mask_decoder" else 1
    special: Mapping[str, Callable[[list[int]], torch.Tensor]] = {
        "valid": lambda shape: torch.full(shape, CANVAS, dtype=torch.int32),
        "text_mask": torch.ones,
        "text_self_mask": torch.ones,
        "self_mask": torch.ones,
        "scores": torch.ones,
        "threshold": lambda shape: torch.full(shape, 0.4),
        "boxes": lambda shape: torch.rand([*shape[:-1], 2, 2]).sort(dim=-2).values.flatten(-2) * box_scale,
    }
    by_dtype: Mapping[str, Callable[[list[int]], torch.Tensor]] = {
        "uint8": lambda shape: torch.randint(0, 256, shape, dtype=torch.uint8),
        "int32": lambda shape: torch.arange(shape[-1], dtype=torch.int32).expand(shape).contiguous(),
        "float32": torch.randn,
    }
    return tuple(
        special.get(spec.name, by_dtype[spec.dtype])(
            [lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        )
        for spec in network.inputs
    )


def _largest_difference(network: Network, found: Mapping[str, Any], expected: Any) -> float | None:
    tensors = expected if isinstance(expected, tuple) else (expected,)
    if any(spec.name in SORTED for spec in network.outputs) or network.name == "grounding_dino_detector":
        return None
    return max(
        float(np.abs(found[spec.name] - tensor.numpy()).max())
        for spec, tensor in zip(network.outputs, tensors, strict=True)
    )


if __name__ == "__main__":
    main()
