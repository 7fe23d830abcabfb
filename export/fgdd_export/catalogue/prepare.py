"""Make bundles of the catalogue's models: fetch the source, run the recipe, write the bundle, check it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.catalogue.efficientnet_lite import prepare_efficientnet_lite0
from fgdd_export.catalogue.u2netp import prepare_u2netp
from fgdd_export.graphs.graph import EXTRA, bundle_of, read_model
from fgdd_export.graphs.parity import Prepared
from fgdd_fast.errors import BundleError
from fgdd_fast.models.catalogue.catalogue import Entry, Preparation, Recipe, bundle_path, load_catalogue
from fgdd_fast.models.catalogue.download import fetch_source

_log = logging.getLogger(__name__)

RECIPES: Mapping[Recipe, Callable[[Path, Preparation], Prepared]] = {
    "u2netp": prepare_u2netp,
    "efficientnet-lite0": prepare_efficientnet_lite0,
}
RECIPE_VERSION = 1  # counted up when a recipe gives another graph than before


@dataclass(frozen=True)
class Status:
    """Whether a catalogue model's bundle in the cache can be used.

    Attributes:
        state: `outdated` means whole, but made from another source or by an older recipe.
        reason: why, where it is not `ok` or `absent`; empty otherwise.
    """

    state: Literal["absent", "ok", "outdated", "damaged"]
    reason: str = ""


def pull_model(name: str, *, from_file: Path | None = None) -> Bundle:
    """Fetch and prepare a model of the catalogue; nothing is done where its bundle is here and up to date.

    Args:
        name: the model.
        from_file: a copy of its source fetched by other means; see `fetch_source`.

    Raises:
        BundleError: the catalogue has no such model, or it could not be prepared.
        DownloadError: its source cannot be had.
        MissingExtraError: a package that the recipe needs is not installed.
    """
    entry = load_catalogue()[name]
    if verify(entry).state == "ok":
        return load_bundle(bundle_path(entry))
    source_file = fetch_source(entry, from_file=from_file)
    _log.info("Preparing %s", name)
    return prepare(entry, source_file, bundle_path(entry))


def prepare(entry: Entry, source_file: Path, onnx: Path) -> Bundle:
    """Make a model's bundle from its source file.

    Args:
        entry: the model.
        source_file: its source, already checked against its hash.
        onnx: where the ONNX file goes; the sidecar goes beside it.

    Raises:
        BundleError: the source is not what the recipe takes, or the result differs from it; nothing is
            written then.
        MissingExtraError: a package that the recipe needs is not installed.
    """
    prepared = RECIPES[entry.preparation.recipe](source_file, entry.preparation)
    if prepared.role != entry.role:
        raise BundleError(
            f"The recipe {entry.preparation.recipe} makes a {prepared.role}, but the catalogue calls "
            f"{entry.name} a {entry.role}",
            "Correct its role in your catalogue.",
        )
    tools = {package: import_optional(package, EXTRA).__version__ for package in ("onnx", "onnxslim")}
    bundle = bundle_of(
        read_model(prepared.model, f"The model {entry.name}"),
        onnx,
        prepared.role,
        preprocessing=prepared.preprocessing,
        source={**_provenance(entry), "made_with": tools},
        licence=entry.licence,
        parity=prepared.parity,
    )
    return write_bundle(replace(bundle, name=entry.name), prepared.model)


def verify(entry: Entry) -> Status:
    """Check a model's bundle in the cache against its own hash and the catalogue; nothing is downloaded."""
    onnx = bundle_path(entry)
    if not onnx.exists() and not onnx.with_suffix(".json").exists():
        return Status("absent")
    try:
        bundle = load_bundle(onnx, entry.role)
    except BundleError as error:
        return Status("damaged", error.problem)
    wanted = _provenance(entry)
    changed = [key for key, value in wanted.items() if bundle.source.get(key) != value]
    if changed:
        return Status("outdated", f"it was made with another {changed[0].replace('_', ' ')}")
    return Status("ok")


def _provenance(entry: Entry) -> dict[str, Any]:
    preparation = entry.preparation
    size = {} if preparation.size is None else {"size": preparation.size}
    recipe = {"recipe": preparation.recipe, "recipe_version": RECIPE_VERSION}
    return {**entry.source.provenance, **recipe, **size}
