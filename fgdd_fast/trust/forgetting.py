"""Photographs that were withdrawn, taken out of a distilled data set and out of the store."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fgdd_engines.paths import cache_folder
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.distilling import open_pipeline
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.place import file_signature
from fgdd_fast.measurement.store import Store
from fgdd_fast.options import MeasureOptions, PlanOptions
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.folder import LABELS, check_output
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.runtime.choose import RuntimeOptions

_LEFT_OUT = ("keep_foreground", "least_area")  # of a manifest, where nothing is asked for


@dataclass(frozen=True)
class Forgotten:
    """What became of photographs that were withdrawn.

    Attributes:
        sources: those that are gone, copies with the same bytes included, as paths within DATA.
        tiles: tiles of theirs that the data set had.
        stored: images of which the store held something.
        labels: whether stored labels went with the old images, and have to be made again.
        remaining: those whose files still lie in DATA, and would be taken by the next distillation.
        manifest: of the data set as it is now.
    """

    sources: tuple[str, ...]
    tiles: int
    stored: int
    labels: bool
    remaining: tuple[str, ...]
    manifest: Manifest


def forget(
    out: str | Path,
    sources: Sequence[str],
    *,
    data: str | Path,
    teacher: str | Path,
    foreground: str | None = None,
    store: str | Path | None = None,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
) -> Forgotten:
    """Make a distilled data set what it would be had some photographs never been there.

    Everything that the store holds of them is overwritten on the disk. Then the set is decided and written
    anew from DATA without them, by the settings of its manifest: the next in rank take their places, and
    thresholds follow. Only what was never measured is measured. Copies with the same bytes under other names
    go too. Stored labels go with the old images. Neither files of DATA nor other data sets are touched.

    Args:
        out: the folder of the distilled data set; replaced whole or not at all.
        sources: the photographs, as paths within DATA, as in the manifest.
        data: the folder that the data set was distilled from; the photographs may be gone from it.
        teacher: the bundle that its manifest names.
        foreground: the foreground model that its manifest names; by default found by that name.
        store: the folder of the store; the one in the cache folder by default.
        runtime: how models run; the batch is that of the manifest.
        progress: told how far it is.

    Raises:
        SettingsError: a photograph is neither in the manifest nor in DATA; or the manifest was made by other
            models, or by a version that named its settings otherwise.
        FgddError: what is left cannot be distilled; OUT is then as it was.
    """
    out, data = Path(out), Path(data)
    manifest = open_distilled(out).manifest
    check_output(out, data, overwrite=True)
    dataset = scan(data)
    withdrawn = _contents(sources, manifest, dataset)
    tiles = [tile for image in manifest.images for tile in image.tiles if tile.sha256 in withdrawn]
    shelf = cache_folder() / "store" if store is None else Path(store)
    gone = {*sources, *(tile.source for tile in tiles)}
    with Store(shelf) as opened:
        gone |= _known_copies(opened, dataset, withdrawn)
        stored = opened.forget(withdrawn)
    labels = (out / LABELS).exists()
    with _asked_as(manifest) as settings:
        while True:
            settings |= {"teacher": teacher, "store": shelf}
            settings["foreground"] = foreground or manifest.models["foreground"].name
            written, copies = _distil(
                out, _without(dataset, gone), manifest, withdrawn, settings, runtime, progress
            )
            if written is not None:
                break
            gone |= copies
    with Store(shelf) as opened:
        opened.forget(withdrawn)  # copies that were never measured before, and were until they were found
    present = {image.source for image in dataset.images}
    return Forgotten(tuple(sorted(gone)), len(tiles), stored, labels, tuple(sorted(gone & present)), written)


def _contents(sources: Sequence[str], manifest: Manifest, dataset: DataSet) -> set[str]:
    """The SHA-256 of each photograph, by the manifest and by DATA."""
    named = {tile.source: tile.sha256 for image in manifest.images for tile in image.tiles}
    paths = {image.source: image.location for image in dataset.images}
    found: set[str] = set()
    for source in sources:
        known = {named[source]} if source in named else set()
        if source in paths:
            try:
                known.add(read_file(paths[source]).sha256)
            except ImageError as error:
                raise SettingsError(f"The photograph {source!r} cannot be read: {error.problem}") from error
        if not known:
            raise SettingsError(
                f"The photograph {source!r} is neither in the manifest nor in {dataset.root}",
                "Name it by its path within DATA, as the manifest does.",
            )
        found |= known
    return found


def _known_copies(store: Store, dataset: DataSet, withdrawn: set[str]) -> set[str]:
    """The images of DATA with the same bytes, as far as the store has read them."""
    signatures = {}
    for image in dataset.images:
        with suppress(OSError):  # gone since it was listed
            signatures[image.location] = file_signature(image.location)
    known = store.known_files(signatures)
    found = {path for path, file in known.items() if file.sha256 in withdrawn}
    return {image.source for image in dataset.images if image.location in found}


def _without(dataset: DataSet, gone: set[str]) -> DataSet:
    return replace(dataset, images=tuple(image for image in dataset.images if image.source not in gone))


@contextmanager
def _asked_as(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The settings of a manifest, by the names of options; prompts lie in a file while the block lasts."""
    settings = dict(manifest.settings)
    for name in ("batch", "foreground_batch"):
        settings.pop(name, None)
    settings["pool"] = None if settings.get("pool") == "all" else settings.get("pool")
    settings |= {name: settings.get(name, 0.0) for name in _LEFT_OUT}
    with tempfile.TemporaryDirectory(prefix="fgdd-fast-") as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps(dict(manifest.prompts)), encoding="utf-8")
        yield {**settings, **({"prompts": prompts} if manifest.prompts else {})}


def _distil(
    out: Path,
    dataset: DataSet,
    manifest: Manifest,
    withdrawn: set[str],
    settings: dict[str, Any],
    runtime: RuntimeOptions | None,
    progress: Progress,
) -> tuple[Manifest | None, set[str]]:
    """Distil anew; or, where a copy of what was withdrawn turns up, write nothing and name it."""
    batch, own = manifest.settings.get("batch", 1), "foreground_batch" in manifest.settings
    # A batch for each network is what `auto` gave.
    runtime = replace(
        runtime or RuntimeOptions(), batch=batch if isinstance(batch, int) and not own else "auto"
    )
    names = {each.name for each in fields(PlanOptions)}
    deciding = {name: value for name, value in settings.items() if name in names}
    measuring = {name: value for name, value in settings.items() if name not in names}
    if unknown := measuring.keys() - {each.name for each in fields(MeasureOptions)}:
        raise SettingsError(f"The manifest of {out} names settings of another version: {sorted(unknown)}")
    with open_pipeline(dataset, runtime=runtime, progress=progress, **measuring) as pipeline:
        for role, model in pipeline.models.items():
            if model.sha256 != manifest.models[role].sha256:
                raise SettingsError(
                    f"The {role} {model.name} is not the one by which {out} was distilled",
                    f"Name that one with --{role}.",
                )
        plan = pipeline.plan(progress=progress, **deciding)
        copies = _known_copies(pipeline.store, dataset, withdrawn)  # by now all were read
        if copies:
            return None, copies
        return pipeline.write(plan, out, overwrite=True, progress=progress), copies
