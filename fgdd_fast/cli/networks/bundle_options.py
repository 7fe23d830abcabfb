"""Options of what makes networks: where a bundle goes, and how it is compared with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.options import F, combined, folder, json_option
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.sample_images import SampleImage, check_images

DETECTOR_SETTINGS = ("canvas", "fit", "text_length", "threshold", "form")


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


def comparison_options(
    images: int | None, *, shown: str | None = None, prompts: bool = True
) -> Callable[[F], F]:
    """On which images a network is compared with what it was made of, and how many by default."""
    asked = click.option(
        "--prompts",
        type=folder(),
        metavar="FILE",
        help="What to look for in the classes of --check, as for 'distill'.",
    )
    return combined(
        click.option(
            "--check",
            type=folder(),
            metavar="DATA",
            help="Compare on photographs of this folder, one folder a class; else on drawn ones.",
        ),
        click.option(
            "--check-images",
            "count",
            type=click.IntRange(min=1),
            default=images,
            show_default=shown or True,
            help="How many of them.",
        ),
        *([asked] if prompts else []),
    )


def bundle_options(images: int, *, prompts: bool = False) -> Callable[[F], F]:
    """How a bundle is compared with its source, and what is said of it."""
    return combined(
        comparison_options(images, prompts=prompts),
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
        json_option(),
    )


def detector_options() -> Callable[[F], F]:
    """What is fixed in an exported detector."""
    return combined(
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


def segmenter_size_option(name: str) -> Callable[[F], F]:
    """The side of the segmenter's image."""
    return click.option(
        name,
        "segmenter_size",
        type=click.IntRange(min=1),
        help="Side of the segmenter's image in pixels, such as 768 or 512: cheaper, with coarser masks. "
        "Default: the checkpoint's own.",
    )
