"""All that a board needs of models and settings, in one file that is refused if any byte of it changed.

    board.tar       CONTENTS, the files of the bundles, and `prompts`; after the archive's end its SHA-256

`CONTENTS` is JSON: the hash of each file, and the settings of a stream. The same input gives the same bytes.
Unpacked, the settings are a file for `fgdd-fast stream --config`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fgdd_engines.bundle import schema
from fgdd_engines.bundle.bundle import VARIANTS, Bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import BundleError, OutputError, SettingsError
from fgdd_fast.models.factory import find_network
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.output.folder import output_folder, writing

CONFIGURATION = "stream.toml"
_CONTENTS, _PROMPTS = "CONTENTS", "prompts"  # without a dot, which every file of a bundle has
_SEAL = 64  # digits
_CHUNK = 1 << 20
_SETTINGS = schema.table(
    schema.either(schema.flag, schema.number(), schema.string()),
    schema.string(r"[a-z][a-z-]*", what="an option's name"),
)
_LISTED = schema.record(
    {"format": schema.one_of(1), "files": schema.table(schema.SHA256), "stream": _SETTINGS}
)


@dataclass(frozen=True)
class PackedBundles:
    """What a file for a board holds.

    Attributes:
        sha256: hexadecimal hash of the archive in it.
        files: the hexadecimal SHA-256 of each file, by its name.
        settings: the file of settings, once it is unpacked; None before.
    """

    sha256: str
    files: Mapping[str, str]
    settings: Path | None = None


def pack_bundles(
    bundles: Sequence[str | Path],
    file: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
) -> PackedBundles:
    """Gather bundles, with all that belongs to them, and the settings of a stream in one file.

    Args:
        bundles: names of the catalogue, or paths. Parts, variants, attached files and files of weights go
            along; a stream takes one teacher and one foreground model.
        file: the file to write, whole or not at all; an older one is replaced.
        settings: of the stream, by the names of the options of `fgdd-fast stream`: texts, numbers or flags. A
            file of prompts goes along; those of the models are set here.

    Raises:
        BundleError: a bundle is missing or damaged.
        SettingsError: two files have one name, there are two models for one purpose, or a setting or the
            prompts cannot be used.
        OutputError: the file cannot be written.
    """
    file, taken, paths = Path(file), dict(settings or {}), dict[str, Path]()
    found = {bundle.onnx.resolve(): bundle for bundle in map(find_network, map(str, bundles))}.values()
    for role in ("teacher", "foreground"):
        names = [bundle.onnx.name for bundle in found if bundle.role == role]
        if len(names) > 1:
            raise SettingsError(f"A stream has one {role}: {' or '.join(names)}", "Pack them in two files.")
        if names:
            taken[role] = names[0]
    for path in (path for bundle in found for path in _files_of(bundle)):
        if path.name in paths and file_sha256(paths[path.name]) != file_sha256(path):
            raise SettingsError(f"{path} and {paths[path.name]} have one name", "Rename a bundle.")
        paths[path.name] = path
    if "prompts" in taken:
        taken["prompts"], paths[_PROMPTS] = _PROMPTS, Path(str(taken["prompts"]))
        read_prompts(paths[_PROMPTS])
    special = os.path.lexists(file) and not file.is_file()
    if special or file.resolve() in {path.resolve() for path in paths.values()}:
        what = "no plain file" if special else "one of the files to be packed"
        raise SettingsError(f"{file} is {what}", "Name another file to write.")
    listed: dict[str, Any] = {
        "format": 1,
        "files": {name: file_sha256(path) for name, path in paths.items()},
        "stream": {name.replace("_", "-"): value for name, value in taken.items()},
    }
    try:
        contents = json.dumps(listed, indent=1, sort_keys=True).encode()
        schema.read_json(contents, _LISTED)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"These settings cannot be packed: {error}") from error
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with writing(file):
            digest = _write(partial, contents, paths)
            partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink()
    return PackedBundles(digest, listed["files"])


def _files_of(bundle: Bundle) -> Iterator[Path]:
    """The files of a bundle, checked: its own, those of its parts, and of its other forms."""
    yield from (bundle.onnx, bundle.sidecar, *map(bundle.file, bundle.files))
    variants = (bundle.find_variant(variant) for variant in VARIANTS)
    for other in (*map(bundle.part, bundle.parts), *variants, *bundle.cropped_graphs()):
        if other is not None:
            yield from _files_of(other)


def _write(partial: Path, contents: bytes, paths: Mapping[str, Path]) -> str:
    """Write the archive and its hash, which is returned."""
    with partial.open("wb") as target:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_entry(_CONTENTS, len(contents)), io.BytesIO(contents))
            for name, path in sorted(paths.items()):
                with path.open("rb") as source:
                    tar.addfile(_entry(name, path.stat().st_size), source)
        target.flush()
        digest = file_sha256(partial)
        target.write(digest.encode())
        target.flush()
        os.fsync(target.fileno())
    return digest


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)  # of the year 1970 and user 0: the same in every run
    entry.size = size
    return entry


def unpack_bundles(file: str | Path, folder: str | Path) -> PackedBundles:
    """Unpack what `pack_bundles` packed into a new folder, which appears whole or not at all.

    Args:
        file: the file.
        folder: the new folder; an empty one is taken.

    Returns:
        What is there; with the file of settings, which names the models by their absolute paths.

    Raises:
        BundleError: the file is torn or was changed, or holds what does not belong there.
        OutputError: the folder cannot be written, or is there already and not empty.
    """
    file, folder = Path(file), Path(folder)
    with writing(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"The folder {folder} exists and is not empty", "Choose another one.")
        place = folder.resolve()
    with output_folder(folder, overwrite=False) as partial:
        digest, listed = _extract(file, partial)
        settings = dict(listed["stream"])
        for option in {"teacher", "foreground", "prompts"} & settings.keys():
            if str(settings[option]) in listed["files"]:
                settings[option] = str(place / settings[option])
        # JSON's texts are TOML's, but for one character.
        values = (
            json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f") for value in settings.values()
        )
        lines = ("[stream]", *map(" = ".join, zip(settings, values, strict=True)), "")
        with writing(folder):
            (partial / CONFIGURATION).write_text("\n".join(lines), "utf-8", errors="surrogateescape")
    return PackedBundles(digest, listed["files"], folder / CONFIGURATION)


def _extract(file: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """Copy what a packed file holds into a folder, if all is right; return its hash, and what it lists."""
    advice = "Copy it again, or pack it again: fgdd-fast bundle pack"
    try:
        with file.open("rb") as source:
            digest = _sealed(source)
            if digest is None:
                raise BundleError(f"{file} is torn, was changed, or is no packed bundle", advice)
            with writing(folder), tarfile.open(fileobj=source, mode="r:") as tar:
                for entry in tar:
                    plain = entry.type == tarfile.REGTYPE and not entry.issparse()
                    stream = tar.extractfile(entry) if plain and Path(entry.name).name == entry.name else None
                    if stream is None:
                        raise BundleError(
                            f"{file} holds {entry.name!r}, which is no plain file", "Do not use it."
                        )
                    with (folder / entry.name).open("xb") as target:
                        shutil.copyfileobj(stream, target)
        listed: dict[str, Any] = schema.read_json((folder / _CONTENTS).read_bytes(), _LISTED)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise BundleError(f"{file} cannot be unpacked: {error}", advice) from error
    if {path.name: file_sha256(path) for path in folder.iterdir() if path.name != _CONTENTS} != listed[
        "files"
    ]:
        raise BundleError(f"{file} holds other files than it lists", "Do not use it.")
    return digest, listed


def _sealed(source: BinaryIO) -> str | None:
    """The hash that ends a file, if it is that of all before it; then the file is at its beginning."""
    length = source.seek(0, os.SEEK_END) - _SEAL
    source.seek(max(length, 0))
    seal = source.read()
    source.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (chunk := source.read(min(_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    source.seek(0)
    return digest.hexdigest() if digest.hexdigest().encode() == seal else None
