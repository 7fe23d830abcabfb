"""`fgdd-fast bundle`: make bundles of networks that are ONNX files already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgdd_export.classifier.bundle import read_class_names
from fgdd_export.imported.bundle import KINDS, TRIED, import_bundle
from fgdd_export.imported.network import NORMALISATIONS, NORMALISATIONS_HELP, Normalisation, of_shares
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.networks.bundle_options import bundle_file, output_option
from fgdd_fast.cli.networks.export import show
from fgdd_fast.cli.options import folder, json_option


@click.group(cls=Group)
def bundle() -> None:
    """Make bundles of networks that you have as ONNX files.

    No PyTorch is needed.
    """


@bundle.command("import")
@click.argument("model", type=folder())
@output_option()
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the network is for.")
@click.option(
    "--normalisation",
    type=click.Choice([*NORMALISATIONS]),
    help=f"What the network expects of its input: {NORMALISATIONS_HELP}.",
)
@click.option("--mean", type=float, nargs=3, help="Of red, green and blue, for values in 0 to 1.")
@click.option("--std", type=float, nargs=3, help="Of red, green and blue, for values in 0 to 1.")
@click.option(
    "--layout", type=click.Choice(["nchw", "nhwc"]), help="Of its input, if its shape does not tell."
)
@click.option("--size", type=click.IntRange(min=1), help="Side of its input in pixels, if that is open.")
@click.option(
    "--output-name", "output_tensor", metavar="TENSOR", help="Which one to take; else the first output."
)
@click.option(
    "--classes",
    "names",
    type=folder(),
    metavar="FILE",
    help="A teacher's class names by its outputs, one a line or a JSON list; else its metadata's.",
)
@click.option(
    "--try",
    "tried",
    type=folder(),
    metavar="DATA",
    help=f"Try a teacher on {TRIED} images of DATA, and refuse a normalisation that is not theirs.",
)
@click.option("--licence", default="NOASSERTION", show_default=True, metavar="SPDX", help="Of the weights.")
@click.option("--force", is_flag=True, help="Write the bundle whatever comparison and trial say.")
@json_option()
def import_command(
    model: Path,
    output: Path,
    normalisation: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    output_tensor: str | None,
    names: Path | None,
    **options: Any,
) -> None:
    """Make a bundle of an ONNX file.

    MODEL is that of a classifier, or of a network that finds what stands out.

    \b
    Example: fgdd-fast bundle import model.onnx -o teacher.onnx --kind teacher --normalisation imagenet
    """
    if (mean is None) != (std is None) or (mean is None) == (normalisation is None):
        raise click.UsageError("Say what the network expects: --normalisation NAME, or --mean and --std.")
    given: str | Normalisation = normalisation or ""
    if mean is not None and std is not None:
        given = of_shares(mean, std)
    made = import_bundle(
        model,
        bundle_file(output),
        normalisation=given,
        output=output_tensor,
        classes=None if names is None else read_class_names(names),
        **options,
    )
    show(made)
