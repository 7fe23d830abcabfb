"""`fgdd-fast export`: turn PyTorch networks into bundles that run without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.classifier.bundle import export_teacher, read_class_names
from fgdd_export.classifier.class_activation import export_class_activation
from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.cli.options import FACTOR, SIZE, combined, folder
from fgdd_fast.models.catalogue.catalogue import find_bundle, own_bundle_path
from fgdd_fast.models.class_activation import CLASS_ACTIVATION, THRESHOLD
from fgdd_fast.models.grounded_sam2 import GROUNDED
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.runtime.sample_images import SampleImage, check_images

F = TypeVar("F", bound=Callable[..., Any])
DETECTOR_SETTINGS = ("canvas", "fit", "text_length", "threshold", "form")
PACKAGES = ("torch", "transformers", "onnx", "onnxslim", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """Where a bundle goes and how it is compared with its source, named as on the command line."""

    output: Path
    check: Path | None
    count: int
    licence: str
    force: bool
    prompts: Path | None = None

    @property
    def onnx(self) -> Path:
        """The ONNX file of the bundle."""
        return bundle_file(self.output)

    def images(self) -> tuple[SampleImage, ...]:
        """The images of the comparison."""
        prompts = {} if self.prompts is None else read_prompts(self.prompts)
        return check_images(self.check, self.count, prompts)

    def common(self) -> dict[str, Any]:
        """What every exporter takes by these names."""
        return {"licence": self.licence, "force": self.force}


def bundle_file(path: Path) -> Path:
    """The ONNX file of a bundle, which may be named without its suffix."""
    return path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")


def canvas_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH."""
    if value is None:
        return None
    height, _, width = value.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise click.BadParameter(f"{value!r} is not HEIGHTxWIDTH in pixels, such as 800x1066.")
    return int(height), int(width)


def output_option(family: str | None = None) -> Callable[[F], F]:
    """Where a bundle goes: where a family of foreground models finds it, unless it is named."""
    place: dict[str, Any] = {"required": True}
    if family is not None:
        shown = f"in the cache folder, where --foreground {family} finds it"
        place = {"default": lambda: own_bundle_path(family), "show_default": shown}
    return click.option(
        "-o", "--output", type=folder(), metavar="BUNDLE", help="The bundle to write.", **place
    )


def check_options(images: int) -> Callable[[F], F]:
    """How a bundle is compared with its source, and what is said of it."""
    return combined(
        click.option(
            "--check",
            type=folder(),
            metavar="DATA",
            help="Compare on photographs of this folder, one folder a class; else on drawn scenes.",
        ),
        click.option(
            "--check-images",
            "count",
            type=click.IntRange(min=1),
            default=images,
            show_default=True,
            help="How many of them.",
        ),
        click.option(
            "--licence",
            default="NOASSERTION",
            show_default=True,
            metavar="SPDX",
            help="Licence of the weights, for the sidecar.",
        ),
        click.option(
            "--force", is_flag=True, help="Write the bundle even if it differs from its source too much."
        ),
    )


def detector_options() -> Callable[[F], F]:
    """What is fixed in an exported detector."""
    return combined(
        click.option(
            "--prompts",
            type=folder(),
            metavar="FILE",
            help="What to look for in the classes of --check, as for 'distill'.",
        ),
        click.option(
            "--canvas",
            callback=canvas_size,
            metavar="HEIGHTxWIDTH",
            help="Of the detector's input; best in the aspect of most images. Default: a square of the "
            "checkpoint's shortest edge.",
        ),
        click.option(
            "--fit",
            type=click.Choice(["letterbox", "squash"]),
            default="letterbox",
            show_default=True,
            help="How images come to the canvas: in their aspect, the rest masked, or squashed to fill it.",
        ),
        click.option(
            "--text-length",
            type=click.IntRange(min=4),
            default=32,
            show_default=True,
            help="Tokens of a prompt, at most.",
        ),
        click.option(
            "--box-threshold",
            "threshold",
            type=click.FloatRange(0, 1),
            default=0.4,
            show_default=True,
            help="Score above which a box counts, unless 'distill --box-threshold' says otherwise.",
        ),
        click.option(
            "--form", default="a {}.", show_default=True, help="A phrase of a prompt, {} being the name."
        ),
    )


@click.group()
def export() -> None:
    """Turn networks into bundles that run without PyTorch, and prove that they decide the same.

    CHECKPOINT is a folder with config.json and weights, or a name of the model hub. Weights are read without
    executing anything.
    """


@export.command("grounded-sam2")
@click.option("--detector", required=True, metavar="CHECKPOINT", help="Grounding DINO.")
@click.option(
    "--segmenter", required=True, metavar="CHECKPOINT", help="SAM 2.1; also a .pt file as Meta publishes it."
)
@output_option(GROUNDED.name)
@check_options(images=6)
@detector_options()
@click.option(
    "--boxes",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Boxes segmented of an image, at most.",
)
@click.option(
    "--split",
    is_flag=True,
    help="Two graphs instead of one: images without a detection are not segmented, and both are smaller.",
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
    split: bool,
    threads: int,
    **options: Any,
) -> None:
    """Export Grounding DINO and SAM 2.1 as one foreground model that is asked for classes by name."""
    exporter = _exporter("fgdd_export.grounded_sam2.bundle")
    settings = {name: options.pop(name) for name in DETECTOR_SETTINGS}
    wanted = BundleOptions(**options)
    bundle = exporter.export_grounded_sam2(
        detector,
        segmenter,
        wanted.onnx,
        exporter.GroundedSettings(exporter.DetectorSettings(**settings), boxes=boxes, split=split),
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
def export_cam_command(teacher: str, output: Path, threshold: float, size: int | None) -> None:
    """Make a foreground model of the teacher TEACHER: the class activation map of an image's class.

    TEACHER is a bundle whose network ends in global average pooling and one linear layer, as those of
    `teacher fit` do. Nothing is trained, and no PyTorch is needed.
    """
    onnx = bundle_file(output)
    show(export_class_activation(find_bundle(teacher, "teacher"), onnx, threshold=threshold, size=size))


@export.command("grounding-dino")
@click.argument("checkpoint")
@output_option()
@check_options(images=4)
@detector_options()
def export_grounding_dino_command(checkpoint: str, **options: Any) -> None:
    """Export Grounding DINO alone: every proposal's logits and box, and the text encoder as a part."""
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
@check_options(images=4)
def export_sam2_command(checkpoint: str, **options: Any) -> None:
    """Export SAM 2.1 alone: the image encoder, and the box-prompted mask decoder as a part."""
    exporter = _exporter("fgdd_export.sam2.bundle")
    wanted = BundleOptions(**options)
    bundle = exporter.export_sam2(checkpoint, wanted.onnx, check=wanted.images(), **wanted.common())
    show(bundle)


@export.command("teacher")
@click.argument("checkpoint")
@output_option()
@check_options(images=16)
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
    """Export a classifier as a teacher, with the cross-entropy of each sample.

    CHECKPOINT is a folder or hub name of transformers, timm:NAME, torchvision:NAME or module:function (each
    with @FILE for weights of your own), a TorchScript file, a checkpoint of RDED, or a backbone of the
    catalogue. A function of yours is executed, and a TorchScript file with --trust-code; weights never are.
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
    table = Table("measure", "value")
    for name, value in _flat(bundle.parity):
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    Console(stderr=True).print(table)
    click.echo(str(bundle.onnx))


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name.replace('_', ' ')}: ")
        else:
            yield prefix + name.replace("_", " "), value
