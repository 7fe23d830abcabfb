"""Report what was chosen: a picture of a distilled data set beside the images that it was made of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fgdd_engines.bundle.files import write_file
from fgdd_fast.errors import BundleError
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.given_masks import MASKS
from fgdd_fast.output.contact_sheet import contact_sheet
from fgdd_fast.output.folder import writing
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import encode
from fgdd_fast.output.sheet import sheet_classes
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of

SOURCES, MOSAICS = 6, 2  # of each class


def draw_contact_sheet(
    out: str | Path,
    data: str | Path,
    path: str | Path,
    *,
    foreground: str | None = None,
    sources: int = SOURCES,
    mosaics: int = MOSAICS,
    runtime: RuntimeOptions | None = None,
) -> None:
    """Write a picture of what was chosen of DATA, class by class, and why.

    Args:
        out: the distilled data set.
        data: the folder that it was made from.
        path: the PNG file to write.
        foreground: the foreground model that OUT was distilled with; by default the one that its manifest
            names.
        sources: images shown of each class.
        mosaics: mosaics shown of each class.
        runtime: how the foreground model runs.

    Raises:
        DataError: the manifest or an image cannot be read.
        BundleError: the foreground model is not the one that OUT was distilled with.
        OutputError: the file cannot be written.
    """
    out, path = Path(out), Path(path)
    manifest = read_manifest(out)
    with closing(_open_foreground(out, manifest, foreground, runtime or RuntimeOptions())) as model:
        classes = sheet_classes(manifest, out, Path(data), model, sources=sources, mosaics=mosaics)
        picture = contact_sheet(classes, total=len(manifest.classes))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, encode(picture, "png"))


def _open_foreground(
    out: Path, manifest: Manifest, named: str | None, runtime: RuntimeOptions
) -> ForegroundModel:
    """Open the foreground model that OUT was distilled with, and ask it as then."""
    used = manifest.models["foreground"]
    if named is None and used.name == MASKS.name:
        raise BundleError(
            f"{out} was distilled with given masks", f"Name their folder: --foreground {MASKS.spelling}"
        )
    choice = choose_foreground(
        named or used.name,
        manifest.classes,
        prompts=manifest.prompts or None,
        box_threshold=manifest.box_threshold,
    )
    method: ResizeMethod = "pil" if manifest.settings.get("resize") == "pil" else "area"
    model = open_foreground(
        choice,
        runtime=lambda bundle: runtime_of(bundle, runtime),
        batch=1,
        resize=method,
        threads=runtime.threads,
    )
    if model.sha256 != used.sha256:
        model.close()
        raise BundleError(
            f"The foreground model {choice.name} is not the one that {out} was distilled with",
            "Name that one with --foreground.",
        )
    return model
