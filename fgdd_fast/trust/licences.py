"""Under which licence each model and each package is, as the catalogue and the packages say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from fgdd_fast.models.catalogue.catalogue import Entry, FileSource, HubSource, load_catalogue

_PROJECT = "fgdd-fast"
_UNKNOWN = "not said"
_LONGEST = 60  # characters; some packages have the whole text where its name belongs


@dataclass(frozen=True)
class Licence:
    """The licence of a thing.

    Attributes:
        name: of the model, or of the package with its version.
        licence: an SPDX identifier, or what the package says.
        origin: where it comes from: package, repository or file.
        sha256: hexadecimal hash of a model's source file; None for a package.
    """

    name: str
    licence: str
    origin: str
    sha256: str | None = None


def model_licences() -> list[Licence]:
    """Return the licences of the weights of all models of the catalogue, and their sources with hashes."""
    return [
        Licence(entry.name, entry.licence, _origin(entry), entry.source.sha256) for entry in load_catalogue()
    ]


def package_licences() -> list[Licence]:
    """Return the licences of this package and of those that it names and that are installed, by name."""
    found = {each.name: each for each in map(_of_package, _named())}
    return [found[name] for name in sorted(found, key=str.lower)]


def _origin(entry: Entry) -> str:
    origin = entry.source.origin
    if isinstance(origin, FileSource):
        return str(origin.path)
    if isinstance(origin, HubSource):
        return f"{origin.repository} {origin.revision}: {origin.file}"
    return f"{origin.package} {origin.version}: {origin.file}"


def _named() -> Iterator[metadata.Distribution]:
    names = [re.match(r"[\w.-]+", line) for line in metadata.requires(_PROJECT) or ()]
    for name in (_PROJECT, *(match[0] for match in names if match)):
        try:
            yield metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue


def _of_package(package: metadata.Distribution) -> Licence:
    said = package.metadata
    classified = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or ()
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    stated, free = (said.get_all(key) or [""] for key in ("License-Expression", "License"))
    named = stated[0] or ", ".join(classified) or free[0] or _UNKNOWN
    first = named.strip().partition("\n")[0][:_LONGEST]
    return Licence(f"{said['Name']} {package.version}", first, "installed package")
