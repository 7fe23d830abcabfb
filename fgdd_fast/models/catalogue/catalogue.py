"""The catalogue: which models can be pulled, and where they lie once they are here.

`catalogue.json` beside this module is one; a user's own, of the same form, adds to it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fgdd_engines.bundle.bundle import Bundle, Role, load_bundle
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.catalogue.entries import Entry, check_unique, parse_catalogue

__all__ = [
    "Catalogue",
    "Entry",
    "bundle_path",
    "find_bundle",
    "load_catalogue",
    "own_bundle_path",
]


@dataclass(frozen=True)
class Catalogue:
    """Models by name, in the catalogue's order."""

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self.entries)

    def __getitem__(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise BundleError(
            f"The catalogue has no model {name!r}", _advice(name, [entry.name for entry in self.entries])
        )


def bundle_path(entry: Entry) -> Path:
    """Where the bundle's ONNX file lies in the cache once it is pulled."""
    return own_bundle_path(entry.name)


def own_bundle_path(name: str) -> Path:
    """Where the ONNX file of a bundle of this name lies in the cache; it may be the user's own."""
    return cache_folder() / "models" / f"{name}.onnx"


def load_catalogue(extra: Path | None = None) -> Catalogue:
    """Read the catalogue.

    Args:
        extra: a user's own catalogue to add; otherwise the environment variable FGDD_FAST_CATALOGUE may name
            one.

    Raises:
        SettingsError: the user's catalogue cannot be read, is malformed, or uses a name that is taken.
    """
    own = resources.files("fgdd_fast.models.catalogue").joinpath("catalogue.json").read_text(encoding="utf-8")
    entries = parse_catalogue(own, "The catalogue", Path())
    if extra is None and (named := os.environ.get("FGDD_FAST_CATALOGUE")):
        extra = Path(named)
    if extra is not None:
        what = f"The catalogue {extra}"
        try:
            text = extra.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{what} cannot be read: {error}") from error
        entries += parse_catalogue(text, what, extra.parent)
        check_unique(entries, what)
    return Catalogue(entries)


def find_bundle(name_or_path: str, role: Role | None = None) -> Bundle:
    """Find a model that a user names.

    Args:
        name_or_path: a name of the catalogue; or a path to the ONNX file, to its sidecar, or to the two
            without their suffix. A file called like a model of the catalogue is reached by `./NAME`.
        role: what the bundle is needed for; any role will do by default.

    Raises:
        BundleError: it is not there, not pulled yet, damaged, or has another role.
    """
    catalogue = load_catalogue()
    if name_or_path in catalogue:
        entry = catalogue[name_or_path]
        onnx = bundle_path(entry)
        if not (onnx.exists() and onnx.with_suffix(".json").exists()):
            raise BundleError(
                f"The model {name_or_path} has not been pulled yet",
                f"Run: fgdd-fast models pull {name_or_path}",
            )
        return load_bundle(onnx, role)
    path = Path(name_or_path)
    looks_like_path = path.suffix in (".onnx", ".json") or len(path.parts) > 1
    if looks_like_path or Path(f"{path}.json").exists():
        return load_bundle(path, role)
    kind = f"{role} " if role else ""
    known = [entry.name for entry in catalogue if role in (None, entry.role)]
    raise BundleError(
        f"{name_or_path!r} is neither a {kind}bundle's path nor a {role or 'model'} of the catalogue",
        _advice(name_or_path, known),
    )


def _advice(name: str, known: Sequence[str]) -> str:
    if not known:
        return "The catalogue has none: give the path of a bundle."
    close = difflib.get_close_matches(name, known, n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"It has: {', '.join(known)}."
