"""The catalogue: which models can be pulled, where they come from, and where they lie once they are here.

`catalogue.json` beside this module is one; a user's own, of the same form, adds to it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from fgdd_engines.bundle.bundle import ROLES, Bundle, Role, load_bundle
from fgdd_engines.bundle.schema import MOST, free, read_json
from fgdd_engines.bundle.sidecar import LARGEST_SIDE
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import BundleError, SettingsError

FORMAT = 1
Recipe = Literal["u2netp", "efficientnet-lite0"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+!-]*"  # never read as an option, nor as a path
_REPOSITORY = rf"{_NAME}(/{_NAME})?"
_FILE = r"\w[\w.+!-]*(/\w[\w.+!-]*)*"
_SHA256 = r"[0-9a-f]{64}"


@dataclass(frozen=True)
class PackageSource:
    """A file inside the wheel of a registry package."""

    package: str
    version: str
    file: str


@dataclass(frozen=True)
class HubSource:
    """A file of a model hub's repository, at a fixed revision."""

    repository: str
    revision: str
    file: str


@dataclass(frozen=True)
class FileSource:
    """A file on this machine."""

    path: Path


@dataclass(frozen=True)
class Source:
    """Where a model's weights come from, and what they must be.

    Attributes:
        origin: the place.
        sha256: hexadecimal hash of the file.
        size: the file's length in bytes.
    """

    origin: PackageSource | HubSource | FileSource
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """The file's own name, without any folder."""
        origin = self.origin
        return origin.path.name if isinstance(origin, FileSource) else origin.file.rpartition("/")[2]

    @property
    def provenance(self) -> dict[str, str]:
        """What a bundle's sidecar says of it, free of machine paths."""
        origin = self.origin
        place = {"file": self.file_name} if isinstance(origin, FileSource) else dict(vars(origin))
        return {**place, "sha256": self.sha256}


@dataclass(frozen=True)
class Preparation:
    """How the source becomes a bundle.

    Attributes:
        recipe: the way of doing it.
        size: side of the square input in pixels, where the recipe takes one.
    """

    recipe: Recipe
    size: int | None


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        name: what users call it.
        role: what the bundle is for.
        description: one line.
        licence: SPDX identifier of the weights' licence.
        source: where the weights come from.
        preparation: how they become a bundle.
    """

    name: str
    role: Role
    description: str
    licence: str
    source: Source
    preparation: Preparation


def parse_catalogue(text: str, what: str, folder: Path) -> tuple[Entry, ...]:
    """Read a catalogue's JSON.

    Args:
        text: the JSON.
        what: how error messages call it.
        folder: where relative paths of `file` sources begin.

    Raises:
        SettingsError: it is malformed; the message names the place.
    """
    try:
        data = read_json(text, free)
        if data["format"] != FORMAT:
            raise ValueError(f"it has format {data['format']!r}, and this version reads format {FORMAT}")
        sources = {str(key): _source(row, f"source {key!r}", folder) for key, row in data["sources"].items()}
        entries = tuple(_entry(row, sources, f"model {index}") for index, row in enumerate(data["models"]))
    except KeyError as error:
        raise SettingsError(f"{what} is malformed: it has no field {error}") from error
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:  # the last: whose home is there?
        raise SettingsError(f"{what} is malformed: {error}") from error
    check_unique(entries, what)
    return entries


def check_unique(entries: Sequence[Entry], what: str) -> None:
    """Make sure that no two entries have the same name.

    Raises:
        SettingsError: two have; the message calls their catalogue `what`.
    """
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"{what} gives more than one model the name {twice[0]}", "Choose another name.")


def _source(row: Mapping[str, Any], where: str, folder: Path) -> Source:
    kind = row.get("kind")
    origin: PackageSource | HubSource | FileSource
    if kind == "package":
        origin = PackageSource(
            _text(row, "package", where, _NAME),
            _text(row, "version", where, _NAME),
            _text(row, "file", where, _FILE),
        )
    elif kind == "hub":
        origin = HubSource(
            _text(row, "repository", where, _REPOSITORY),
            _text(row, "revision", where, _REPOSITORY),
            _text(row, "file", where, _FILE),
        )
    elif kind == "file":
        origin = FileSource(folder / Path(_text(row, "path", where)).expanduser())
    else:
        raise ValueError(f"{where} has the kind {kind!r}; there are package, hub and file")
    size = _count(row, "size", where, MOST)
    return Source(origin, _text(row, "sha256", where, _SHA256), size)


def _entry(row: Mapping[str, Any], sources: Mapping[str, Source], where: str) -> Entry:
    name = _text(row, "name", where, _NAME)
    where = f"model {name!r}"
    role, source = _text(row, "role", where), _text(row, "source", where)
    if role not in ROLES:
        raise ValueError(f"{where} has the role {role!r}; there are {', '.join(ROLES)}")
    if source not in sources:
        raise ValueError(f"{where} names the source {source!r}, which is not among the sources")
    return Entry(
        name=name,
        role=next(known for known in ROLES if known == role),
        description=_text(row, "description", where),
        licence=_text(row, "licence", where),
        source=sources[source],
        preparation=_preparation(row["preparation"], where),
    )


def _preparation(row: Mapping[str, Any], where: str) -> Preparation:
    recipes: tuple[Recipe, ...] = get_args(Recipe)
    recipe = next((known for known in recipes if known == row.get("recipe")), None)
    if recipe is None:
        raise ValueError(f"{where} has the recipe {row.get('recipe')!r}; there are {', '.join(recipes)}")
    return Preparation(recipe, _count(row, "size", where, LARGEST_SIDE) if "size" in row else None)


def _text(row: Mapping[str, Any], key: str, where: str, pattern: str = r".+") -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
        raise ValueError(f"{where} needs a valid text as '{key}', not {value!r:.80}")
    return value


def _count(row: Mapping[str, Any], key: str, where: str, most: int) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{where} needs a positive integer up to {most} as '{key}', not {value!r:.80}")
    return value


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
