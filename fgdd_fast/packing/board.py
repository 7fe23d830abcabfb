"""All that a board needs of models and settings, in one file that is refused if any byte of it changed.

    board.tar       CONTENTS, the files of the bundles, and `prompts`; after the archive's end its SHA-256

`CONTENTS` is JSON: the hash of each file, which of them are bundles, and the settings of a stream. The same
input gives the same bytes. Unpacked, the settings are a file for `fgdd-fast stream --config`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fgdd_engines.bundle.bundle import VARIANTS, Bundle, load_bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.bundle.schema import (
    SHA256,
    SchemaError,
    array,
    either,
    flag,
    number,
    one_of,
    read_json,
    record,
    string,
    table,
)
from fgdd_fast.errors import BundleError, OutputError, SettingsError
from fgdd_fast.models.factory import find_network
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.output.folder import output_folder, writing

FORMAT = 1
CONFIGURATION = "stream.toml"
_CONTENTS, _PROMPTS = "CONTENTS", "prompts"  # without a dot, which every file of a bundle has
_HEX = 64
_CHUNK = 1 << 20
_PLAIN = string(r"(?!\.)[^/\\\x00-\x1f\x7f]+", what="a plain file's name", longest=255)
_SETTING = string(r"[a-z][a-z-]*", what="an option's name")
_VALUE = either(flag, number(), string())
_LISTED = record(
    {
        "format": one_of(FORMAT),
        "files": table(SHA256, _PLAIN),
        "bundles": array(_PLAIN),
        "stream": table(either(array(_VALUE), _VALUE), _SETTING),
    }
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
    prompts: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PackedBundles:
    """Gather bundles, with all that belongs to them, and the settings of a stream in one file.

    Args:
        bundles: names of the catalogue, or paths. Parts, variants, attached files and files of weights go
            along; of teachers and of foreground models one each is what the stream takes.
        file: the file to write, whole or not at all; an older one is replaced.
        prompts: a file that says what the foreground model looks for in each class.
        settings: of the stream, by the names of the options of `fgdd-fast stream`; texts, numbers, flags, or
            lists of these. Those of the models are set here.

    Raises:
        BundleError: a bundle is missing or damaged.
        SettingsError: two files have one name, there are two models for one purpose, or a setting or the
            prompts cannot be used.
        OutputError: the file cannot be written.
    """
    file = Path(file)
    found = {bundle.onnx.resolve(): bundle for bundle in map(find_network, map(str, bundles))}.values()
    taken = dict(settings or {})
    paths: dict[str, Path] = {}
    for bundle in found:
        if bundle.role in ("teacher", "foreground"):
            if taken.get(bundle.role) in paths:
                raise SettingsError(
                    f"A stream has one {bundle.role}, and {bundle.onnx.name} is another than "
                    f"{taken[bundle.role]}",
                    "Pack them in two files.",
                )
            taken[bundle.role] = bundle.onnx.name
        for path in _files_of(bundle):
            _add(paths, path.name, path)
    if prompts is not None:
        read_prompts(Path(prompts))
        taken["prompts"] = _PROMPTS
        _add(paths, _PROMPTS, Path(prompts))
    if file.resolve() in {path.resolve() for path in paths.values()}:
        raise SettingsError(f"{file} is one of the files to be packed", "Name another file to write.")
    listed: dict[str, Any] = {
        "format": FORMAT,
        "files": {name: file_sha256(path) for name, path in sorted(paths.items())},
        "bundles": sorted({bundle.onnx.name for bundle in found}),
        "stream": {name.replace("_", "-"): value for name, value in sorted(taken.items())},
    }
    try:
        contents = json.dumps(listed, indent=1, sort_keys=True).encode()
        read_json(contents, _LISTED)
    except (SchemaError, TypeError, ValueError) as error:
        raise SettingsError(f"This cannot be packed: {error}") from error
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with writing(file):
            _write(partial, contents, paths)
            _, digest = _checked(partial)  # nothing changed while it was packed
            partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink()
    return PackedBundles(digest, listed["files"])


def _files_of(bundle: Bundle) -> Iterator[Path]:
    """The files of a bundle, checked: its own, those of its parts, and of its other forms."""
    yield from (bundle.onnx, bundle.sidecar, *map(bundle.file, bundle.files))
    forms = (bundle.find_variant(variant) for variant in VARIANTS)
    parts = (bundle.part(name) for name in bundle.parts)
    for other in (*parts, *forms, *bundle.cropped_graphs()):
        if other is not None:
            yield from _files_of(other)


def _add(paths: dict[str, Path], name: str, path: Path) -> None:
    if name == CONFIGURATION or (name in paths and file_sha256(paths[name]) != file_sha256(path)):
        other = paths.get(name, "the settings")
        raise SettingsError(f"Two files would be called {name}: {path} and {other}", "Rename the bundle.")
    paths[name] = path


def _write(partial: Path, contents: bytes, paths: Mapping[str, Path]) -> None:
    with partial.open("wb") as target:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_entry(_CONTENTS, len(contents)), io.BytesIO(contents))
            for name, path in sorted(paths.items()):
                with path.open("rb") as source:
                    tar.addfile(_entry(name, path.stat().st_size), source)
        target.flush()
        target.write(file_sha256(partial).encode())
        target.flush()
        os.fsync(target.fileno())


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
        with writing(folder):
            listed, digest = _checked(file, partial)
        for name in listed["bundles"]:
            needed = {path.name for path in _files_of(load_bundle(partial / name))}
            if missing := needed - listed["files"].keys():
                raise BundleError(f"{file} lacks {sorted(missing)}, which {name} needs", "Pack it again.")
        settings = dict(listed["stream"])
        for option, name in settings.items():
            if option in ("teacher", "foreground", "prompts") and str(name) in listed["files"]:
                settings[option] = str(place / name)
        lines = ["[stream]", *(f"{name} = {_toml(value)}" for name, value in settings.items())]
        try:
            text = "".join(f"{line}\n" for line in lines).encode()
        except UnicodeEncodeError as error:
            raise OutputError(f"The name of {place} is no UTF-8", "Choose another folder.") from error
        with writing(folder):
            (partial / CONFIGURATION).write_bytes(text)
    return PackedBundles(digest, listed["files"], folder / CONFIGURATION)


def _checked(file: Path, into: Path | None = None) -> tuple[dict[str, Any], str]:
    """What a packed file lists and its hash, once all is found to be right, and copied into a folder."""
    broken = "Copy it again, or pack it again: fgdd-fast bundle pack"
    with ExitStack() as stack:
        try:
            source = stack.enter_context(file.open("rb"))
            digest = _sealed(source)
        except OSError as error:
            raise BundleError(f"{file} cannot be read: {error.strerror}") from error
        if digest is None:
            raise BundleError(f"{file} is torn, was changed, or is no packed bundle", broken)
        try:
            with tarfile.open(fileobj=source, mode="r:") as tar:
                return _unpacked(tar, into), digest
        except (tarfile.TarError, SchemaError, UnicodeError) as error:
            raise BundleError(f"{file} is no packed bundle of this version: {error}", broken) from error


def _sealed(source: BinaryIO) -> str | None:
    """The hash that ends a file, if it is that of all before it; then the file is at its beginning."""
    length = source.seek(0, os.SEEK_END) - _HEX
    if length < 0:
        return None
    source.seek(length)
    seal = source.read(_HEX)
    source.seek(0)
    digest = hashlib.sha256()
    while length > 0 and (chunk := source.read(min(_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    source.seek(0)
    return digest.hexdigest() if digest.hexdigest().encode() == seal else None


def _unpacked(tar: tarfile.TarFile, into: Path | None) -> dict[str, Any]:
    """What an archive lists, which is all that it may hold; BundleError where it holds anything else."""
    listed: dict[str, Any] = {}
    left: dict[str, str] = {}
    for entry in tar:
        stream = tar.extractfile(entry) if entry.type == tarfile.REGTYPE and not entry.issparse() else None
        if stream is not None and not listed and entry.name == _CONTENTS:
            listed = read_json(stream.read(), _LISTED)
            left = dict(listed["files"])
            continue
        if stream is None or entry.name not in left:
            raise BundleError(f"The archive holds {entry.name!r}, which it does not list", "Do not use it.")
        digest = hashlib.sha256()
        with (into / entry.name if into else Path(os.devnull)).open("wb") as target:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != left.pop(entry.name):
            raise BundleError(f"The file {entry.name} changed while it was packed", "Pack it again.")
    if left or not listed:
        raise BundleError(f"The archive lacks {sorted(left) or _CONTENTS}", "Pack it again.")
    return listed


def _toml(value: Any) -> str:
    """A setting as TOML has it; JSON's texts are TOML's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
