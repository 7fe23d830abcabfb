"""Checking a data set: every registered check whose cost is allowed, over one look at the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.checking import answers, classes, contents, copies, folders
from fgdd_fast.checking.asking import Models
from fgdd_fast.checking.findings import SEVERITIES, Finding
from fgdd_fast.checking.registry import CHECKS, NEEDS, Need
from fgdd_fast.checking.seen import Seen
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import DataSet, pool, survey
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, find_family
from fgdd_fast.models.foreground import ForegroundChoice, Prompts
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.options import MeasureOptions
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.images_per_class import ImagesPerClass, parse_images_per_class

# Importing them fills CHECKS; findings come in this order.
_PARTS = tuple(module.__name__ for module in (folders, classes, contents, copies, answers))


def check_data(
    data: str | Path | DataSet,
    validation: str | Path | DataSet | None = None,
    *,
    needs: Need | None = None,
    ipc: ImagesPerClass | None = None,
    near: int = 2,
    held_out: bool = False,
    ignore: Sequence[str] = (),
    skip_empty: bool = False,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
    **measuring: Any,
) -> tuple[Finding, ...]:
    """Find what is odd about a folder of labelled images. Nothing is changed, and nothing left out.

    Args:
        data: a folder with one folder of images for each class, or one that was scanned.
        validation: a folder of held-out images, which is held against it.
        needs: the most that checks may look at: `names` of files and folders; `files`, sizes and first
            bytes, and all bytes of files that may be the same; `pixels` of every image; or answers of
            `models`. By default everything that is named: models if a teacher or a foreground model is.
        ipc: images (mosaics) per class that are to be made, if that is settled; see `PlanOptions`.
        near: bits of 64 in which perceptual hashes of near-duplicates differ at most.
        held_out: whether a part of the images is going to be held out, each for itself.
        ignore, skip_empty: see `fgdd_fast.open_data`; of no effect on a folder that was scanned.
        runtime: how models run, and threads that read.
        progress: told how far reading is.
        measuring: what the data set is going to be used with: `teacher` (also a backbone, whose features
            tell likely wrong labels), `foreground`, `prompts`, `pool` (all images by default), `size`,
            `factor`, `seed`, `resize`, `sixteen_bit` and `store` of `fgdd_fast.options.MeasureOptions`.

    Returns:
        What was found, errors first, then in the order of the checks.

    Raises:
        DataError: a folder is missing or cannot be read.
        FgddError: a model cannot be used.
    """
    dataset = data if isinstance(data, DataSet) else survey(Path(data), ignore=ignore)
    held = validation
    if held is not None and not isinstance(held, DataSet):
        held = survey(Path(held), ignore=ignore)
    if needs is None:
        needs = "models" if measuring.get("teacher") is not None or measuring.get("foreground") else "pixels"
    seen = _look(dataset, needs, measuring, runtime or RuntimeOptions(), progress)
    others, by_class = (0, {}) if ipc is None else parse_images_per_class(ipc)
    seen = replace(
        seen,
        validation=held,
        tiles=others * seen.tiles,
        tiles_by_class={name: count * seen.tiles for name, count in by_class.items()},
        near=near,
        held_out=held_out,
        skip_empty=skip_empty or isinstance(data, DataSet),
    )
    allowed = NEEDS[: NEEDS.index(needs) + 1]
    checks = sorted(CHECKS.values(), key=lambda check: _PARTS.index(check.find.__module__))
    found = [each for check in checks if check.needs in allowed for each in check.run(seen)]
    return tuple(sorted(found, key=lambda each: SEVERITIES.index(each.severity)))


def _look(
    dataset: DataSet, needs: Need, measuring: Mapping[str, Any], runtime: RuntimeOptions, progress: Progress
) -> Seen:
    """The data set and the models that it is going to be used with; `tiles` are those of one mosaic."""
    named = measuring.get("foreground") or ""
    options = MeasureOptions(**{"pool": None, **measuring})
    images = pool(dataset, options.pool, options.seed)
    prompts = None if options.prompts is None else read_prompts(Path(options.prompts))
    by_class = bool(named) and find_family(named).asked_by_class
    choice = None
    if named and named != "none" and needs == "models":
        choice = _choose(named, dataset.classes, prompts, options.box_threshold, by_class)
    models = Models(
        dataset,
        images,
        None if options.teacher is None else _find_teacher(str(options.teacher)),
        choice,
        Path(options.store),
        options.resize,
        options.sixteen_bit,
        runtime,
        progress,
    )
    return Seen(
        dataset,
        images,
        foreground=named,
        prompts=prompts or {},
        asked_by_class=by_class,
        tiles=options.factor**2,
        tile=max(options.size // options.factor, 1),
        sixteen_bit=options.sixteen_bit,
        models=models,
        threads=runtime.threads,
        progress=progress,
    )


def _choose(
    name: str, classes: Sequence[str], prompts: Prompts | None, threshold: float | None, by_class: bool
) -> ForegroundChoice | None:
    """The foreground model; None where it cannot be asked by the classes' names, which a check says."""
    if not by_class:
        return choose_foreground(name, classes)
    try:
        return choose_foreground(name, classes, prompts=prompts, box_threshold=threshold)
    except SettingsError:
        return None


def _find_teacher(name: str) -> Bundle:
    bundle = find_bundle(name)
    if bundle.role not in ("teacher", "backbone"):
        raise BundleError(f"The bundle {bundle.onnx} is a {bundle.role}, not a teacher or a backbone")
    return bundle
