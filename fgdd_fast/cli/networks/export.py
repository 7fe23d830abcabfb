"""`fgdd-fast export`: turn PyTorch networks into bundles that run without PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.table import Table

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.classifier.bundle import export_teacher, read_class_names
from fgdd_export.classifier.class_activation import export_class_activation
from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.networks.bundle_options import (
    DETECTOR_SETTINGS,
    BundleOptions,
    bundle_file,
    bundle_options,
    detector_options,
    output_option,
    segmenter_size_option,
)
from fgdd_fast.cli.options import FACTOR, SIZE, folder, give, json_option
from fgdd_fast.cli.terminal import console, say
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.class_activation import CLASS_ACTIVATION, THRESHOLD
from fgdd_fast.models.grounded_sam2 import GROUNDED
from fgdd_fast.runtime.choose import available_processors

PACKAGES = ("torch", "transformers", "onnx", "onnxslim", "tokenizers")


@click.group(cls=Group)
def export() -> None:
    """Turn PyTorch networks into bundles that run without it.

    Each is compared with its source. CHECKPOINT is a folder with config.json and weights, or a name of the
    model hub. Weights are read without executing anything.
    """


@export.command("grounded-sam2")
@click.option("--detector", required=True, metavar="CHECKPOINT", help="Grounding DINO.")
@click.option(
    "--segmenter", required=True, metavar="CHECKPOINT", help="SAM 2.1; also a .pt file as Meta publishes it."
)
@output_option(GROUNDED.name)
@bundle_options(6, prompts=True)
@detector_options()
@click.option(
    "--boxes",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Boxes segmented of an image, at most.",
)
@segmenter_size_option("--segmenter-size")
@click.option(
    "--split/--joint",
    default=True,
    show_default=True,
    help="Two graphs, so that images without a detection are not segmented and each is smaller; or one.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=available_processors,
    show_default="all processors",
    help="Processor threads for the comparison.",
)
def export_grounded_sam2_command(
    detector: str,
    segmenter: str,
    boxes: int,
    segmenter_size: int | None,
    split: bool,
    threads: int,
    **options: Any,
) -> None:
    """Export Grounding DINO and SAM 2.1 as one foreground model.

    It is asked for classes by name.

    \b
    Example: fgdd-fast export grounded-sam2 --detector IDEA-Research/grounding-dino-tiny --segmenter sam2.pt
    """
    exporter = _exporter("fgdd_export.grounded_sam2.bundle")
    settings = {name: options.pop(name) for name in DETECTOR_SETTINGS}
    wanted = BundleOptions(**options)
    bundle = exporter.export_grounded_sam2(
        detector,
        segmenter,
        wanted.onnx,
        exporter.GroundedSettings(exporter.DetectorSettings(**settings), boxes, split, segmenter_size),
        check=wanted.images(),
        threads=threads,
        **wanted.common(),
    )
    show(bundle)


@export.command("cam")
@click.argument("teacher")
@output_option(CLASS_ACTIVATION.name)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=THRESHOLD,
    show_default=True,
    help="Share of a map's maximum above which a pixel is foreground.",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Side of the input in pixels, else the teacher's own; a larger one gives a finer map.",
)
@json_option()
def export_cam_command(teacher: str, output: Path, threshold: float, size: int | None) -> None:
    """Make a foreground model of a teacher: its class activation map.

    It shows what in an image speaks for its class. TEACHER is a bundle whose network ends in global average
    pooling and one linear layer, as those of `teacher fit` do. Nothing is trained, and no PyTorch is needed.

    \b
    Example: fgdd-fast export cam teacher.onnx
    """
    onnx = bundle_file(output)
    bundle = find_bundle(teacher, "teacher")
    show(export_class_activation(bundle, onnx, threshold=threshold, size=size))


@export.command("grounding-dino")
@click.argument("checkpoint")
@output_option()
@bundle_options(4, prompts=True)
@detector_options()
def export_grounding_dino_command(checkpoint: str, **options: Any) -> None:
    """Export Grounding DINO alone.

    The bundle gives every proposal's logits and box; the text encoder is a part of it.

    \b
    Example: fgdd-fast export grounding-dino IDEA-Research/grounding-dino-tiny -o detector.onnx
    """
    exporter = _exporter("fgdd_export.grounding_dino.bundle")
    settings = {name: options.pop(name) for name in DETECTOR_SETTINGS}
    wanted = BundleOptions(**options)
    bundle = exporter.export_grounding_dino(
        checkpoint,
        wanted.onnx,
        exporter.DetectorSettings(**settings),
        check=wanted.images(),
        **wanted.common(),
    )
    show(bundle)


@export.command("sam2")
@click.argument("checkpoint")
@output_option()
@bundle_options(4)
@segmenter_size_option("--size")
def export_sam2_command(checkpoint: str, segmenter_size: int | None, **options: Any) -> None:
    """Export SAM 2.1 alone.

    The bundle is the image encoder; the box-prompted mask decoder is a part of it.

    \b
    Example: fgdd-fast export sam2 facebook/sam2.1-hiera-tiny -o segmenter.onnx
    """
    exporter = _exporter("fgdd_export.sam2.bundle")
    wanted = BundleOptions(**options)
    bundle = exporter.export_sam2(
        checkpoint, wanted.onnx, check=wanted.images(), image_size=segmenter_size, **wanted.common()
    )
    show(bundle)


@export.command("teacher")
@click.argument("checkpoint")
@output_option()
@bundle_options(16)
@click.option(
    "--classes",
    "names",
    type=folder(),
    metavar="FILE",
    help="Class names in the order of the outputs, one a line or a JSON list; else the checkpoint's own.",
)
@click.option(
    "--size", type=click.IntRange(min=1), help="Side of the input in pixels; else the checkpoint's own."
)
@click.option("--mean", type=float, nargs=3, help="Of each channel, for values in 0 to 1.")
@click.option("--std", type=float, nargs=3, help="Of each channel, for values in 0 to 1.")
@click.option(
    "--trust-code", is_flag=True, help="Load a TorchScript file, which is a program, of somebody you trust."
)
def export_teacher_command(
    checkpoint: str,
    names: Path | None,
    size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    trust_code: bool,
    **options: Any,
) -> None:
    """Export a classifier as a teacher.

    The bundle also gives the cross-entropy of each sample. CHECKPOINT is a folder or hub name of
    transformers, timm:NAME, torchvision:NAME or module:function (each with @FILE for weights of your own), a
    TorchScript file, a checkpoint of RDED, or a backbone of the catalogue. A function of yours is executed,
    and a TorchScript file with --trust-code; weights never are.

    \b
    Example: fgdd-fast export teacher timm:resnet18@weights.pt -o teacher.onnx --classes names.txt
    """
    wanted = BundleOptions(**options)
    bundle = export_teacher(
        checkpoint,
        wanted.onnx,
        classes=None if names is None else read_class_names(names),
        size=size,
        mean=mean,
        std=std,
        trust_code=trust_code,
        check=[image.pixels for image in wanted.images()],
        **wanted.common(),
    )
    if bundle.preprocessing.pad_value is not None:
        make_cropped_graph(bundle, SIZE // FACTOR)
    show(bundle)


def _exporter(module: str) -> ModuleType:
    """A module of `fgdd_export` that needs PyTorch; what it lacks is told first."""
    for package in PACKAGES:
        import_optional(package, "export")
    return import_module(module)


def show(bundle: Bundle) -> None:
    """What was measured, and what was written."""
    give({"bundle": str(bundle.onnx), "parity": bundle.parity})
    table = Table("measure", "value")
    for name, value in _flat(bundle.parity):
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    console().print(table)
    say(str(bundle.onnx))


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name.replace('_', ' ')}: ")
        else:
            yield prefix + name.replace("_", " "), value
