"""`fgdd-fast bundle`: make bundles of networks that are ONNX files already, and pack bundles for a board."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fgdd_export.classifier.bundle import read_class_names
from fgdd_export.imported.bundle import KINDS, TRIED, import_bundle
from fgdd_export.imported.network import NORMALISATIONS, NORMALISATIONS_HELP, Normalisation, of_shares
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.configuration import read_toml
from fgdd_fast.cli.distillation.stream import stream
from fgdd_fast.cli.networks.bundle_options import bundle_file, output_option
from fgdd_fast.cli.networks.export import show
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import say
from fgdd_fast.errors import SettingsError
from fgdd_fast.packing.board import pack_bundles, unpack_bundles


@click.group(cls=Group)
def bundle() -> None:
    """Make bundles of ONNX files, and pack bundles for a board.

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


@bundle.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...", shell_complete=offered.models())
@click.option("-o", "--output", type=folder(), required=True, metavar="FILE", help="The file to write.")
@click.option(
    "--settings",
    type=folder(),
    metavar="FILE",
    help="Settings of 'stream' to take along, prompts too: the table [stream] of a file for --config.",
)
@json_option()
@click.pass_context
def pack(ctx: click.Context, bundles: tuple[str, ...], output: Path, settings: Path | None) -> None:
    """Pack all that a board needs into one file.

    All files of each BUNDLE go along, its variants too. 'fgdd-fast bundle unpack' refuses the file if any
    byte of it changed.

    \b
    Example: fgdd-fast bundle pack teacher.onnx saliency-u2netp -o board.tar
    """
    given = {} if settings is None else _stream_settings(ctx, settings)
    packed = pack_bundles(bundles, output, settings=given)
    give({"file": str(output), "sha256": packed.sha256, "files": packed.files})
    say(f"{output}: {len(packed.files)} files, SHA-256 {packed.sha256}")


def _stream_settings(ctx: click.Context, file: Path) -> dict[str, Any]:
    """The settings of a stream in a file, checked as `stream --config` would."""
    table = read_toml(file).get("stream")
    if not isinstance(table, dict):
        raise SettingsError(f"{file} has no settings of a stream", "Put them below a line: [stream]")
    stream.make_context("stream", ["SOURCE", "OUT", "--config", str(file)], parent=ctx.find_root())
    return table


@bundle.command()
@click.argument("file", type=folder())
@click.argument("target", type=folder(), metavar="FOLDER")
@json_option()
def unpack(file: Path, target: Path) -> None:
    """Unpack on a board what was packed for it.

    The new FOLDER has the bundles, and stream.toml, the settings of a stream with these models:
    'fgdd-fast stream SOURCE OUT --config FOLDER/stream.toml'.

    \b
    Example: fgdd-fast bundle unpack board.tar models
    """
    unpacked = unpack_bundles(file, target)
    give({**asdict(unpacked), "settings": str(unpacked.settings)})
    say(f"{len(unpacked.files)} files in {target}, SHA-256 {unpacked.sha256}")
    say(f"Settings for --config: {unpacked.settings}")
