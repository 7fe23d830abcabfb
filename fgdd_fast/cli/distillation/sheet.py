"""`fgdd-fast sheet`: a picture of what was chosen, and why."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fgdd_engines.bundle.files import write_file
from fgdd_fast.cli.options import folder, runtime_options
from fgdd_fast.cli.session import RuntimeOptions, open_runtime
from fgdd_fast.errors import BundleError
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.factory import MASKS, ForegroundChoice, find_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.output.contact_sheet import contact_sheet
from fgdd_fast.output.folder import writing
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import encode
from fgdd_fast.output.sheet import sheet_classes

SOURCES = 6  # of each class
MOSAICS = 2


@click.command()
@click.argument("out", type=folder())
@click.argument("data", type=folder())
@click.option("-o", "--output", type=folder(), required=True, metavar="FILE", help="The PNG file to write.")
@click.option(
    "--foreground",
    metavar="NAME|BUNDLE|masks:FOLDER",
    help="The foreground model that OUT was distilled with; by default the one that its manifest names.",
)
@click.option(
    "--sources",
    type=click.IntRange(min=1),
    default=SOURCES,
    show_default=True,
    help="Images shown of each class.",
)
@click.option(
    "--mosaics",
    type=click.IntRange(min=1),
    default=MOSAICS,
    show_default=True,
    help="Mosaics shown of each class.",
)
@runtime_options()
def sheet(
    out: Path, data: Path, output: Path, foreground: str | None, sources: int, mosaics: int, **options: Any
) -> None:
    """Draw a contact sheet of the distilled data set OUT, made from DATA.

    It shows, for each class, source images with their foreground outlined, their occupancy, the path taken
    and the box chosen, beside the mosaics.
    """
    console = Console(stderr=True)
    draw_sheet(
        out,
        data,
        output,
        foreground=foreground,
        sources=sources,
        mosaics=mosaics,
        options=RuntimeOptions(**options),
        console=console,
    )
    click.echo(str(output))


def draw_sheet(
    out: Path,
    data: Path,
    output: Path,
    *,
    foreground: str | None = None,
    sources: int = SOURCES,
    mosaics: int = MOSAICS,
    options: RuntimeOptions,
    console: Console,
) -> None:
    """Write the contact sheet of a distilled data set.

    Raises:
        DataError: the manifest or an image cannot be read.
        BundleError: the foreground model is not the one that OUT was distilled with.
        OutputError: the file cannot be written.
    """
    manifest = read_manifest(out)
    with (
        closing(_open_foreground(out, manifest, foreground, options, console)) as model,
        console.status("Drawing the contact sheet"),
    ):
        classes = sheet_classes(manifest, out, data, model, sources=sources, mosaics=mosaics)
        picture = contact_sheet(classes, total=len(manifest.classes))
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_file(output, encode(picture, "png"))


def _open_foreground(
    out: Path, manifest: Manifest, named: str | None, options: RuntimeOptions, console: Console
) -> ForegroundModel:
    """Open the foreground model that OUT was distilled with, and ask it as then."""
    used = manifest.models["foreground"]
    if named is None and used.name == MASKS:
        raise BundleError(
            f"{out} was distilled with given masks", f"Name their folder: --foreground {MASKS}:FOLDER"
        )
    source = find_foreground(named or used.name)
    choice = ForegroundChoice(source, manifest.classes, manifest.prompts, manifest.box_threshold)
    method: ResizeMethod = "pil" if manifest.settings.get("resize") == "pil" else "area"
    model = open_foreground(
        choice,
        runtime=lambda bundle: open_runtime(bundle, options, console),
        batch=1,
        resize=method,
        threads=options.threads,
    )
    if model.sha256 != used.sha256:
        model.close()
        raise BundleError(
            f"The foreground model {choice.name} is not the one that {out} was distilled with",
            "Name that one with --foreground.",
        )
    return model
