"""The distilled data set's folder, which appears whole or not at all.

    OUT/manifest.json
    OUT/images/<class>/<class>_00000.png
    OUT/SHA256SUMS                          hashes of these
    OUT/run.json                            the record of the run
    OUT/report.html                         made by `fgdd-fast report`
    OUT/labels/                             made by `fgdd-fast label`, if at all

Everything is written to `.OUT.partial-<process id>` beside OUT, flushed to disk, and renamed. An older OUT is
kept until the new one is complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fgdd_fast.errors import OutputError

IMAGES = "images"
MANIFEST = "manifest.json"
HASHES = "SHA256SUMS"
RUN_RECORD = "run.json"
REPORT, COMPARISON = "report.html", "comparison.html"
LABELS = "labels"
LABEL_INDEX = "labels.json"
# What this tool or a file manager may have put beside them. It goes with the data set that it was made of.
HARMLESS = frozenset(
    {
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "sheet.png",
        "contact-sheet.png",
        HASHES,
        RUN_RECORD,
        REPORT,
        COMPARISON,
    }
)

_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space, or choose an OUT on another disk.",
    errno.EDQUOT: "Your disk quota is used up: free some space, or choose an OUT on another disk.",
    errno.EACCES: "Choose an OUT in a folder that you may write to.",
    errno.EPERM: "Choose an OUT in a folder that you may write to.",
    errno.EROFS: "The file system is read-only: choose an OUT on another one.",
    errno.ENAMETOOLONG: "Shorten the name of OUT or of the class's folder.",
    errno.ENOTDIR: "A part of the path is a file: choose another OUT.",
    errno.EEXIST: "A part of the path is a file: choose another OUT.",
}


def check_output(out: Path, data: Path, *, overwrite: bool) -> None:
    """Refuse an OUT that cannot be written in the end, before the long work.

    Folders are made and removed again to see whether that is possible, and what killed runs left beside OUT
    is cleaned up; nothing else is changed on disk.

    Args:
        out: the folder to be made.
        data: the root of the source images, which OUT must be apart from.
        overwrite: whether an older distilled data set at `out` may be replaced.

    Raises:
        OutputError: OUT would mix with DATA, exists and may not be replaced, or cannot be created.
    """
    target, root = _resolve(out), _resolve(data)
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise OutputError(
            f"The output {out} and the images {data} lie one inside the other",
            "Choose an OUT outside DATA: otherwise the next run would take one for the other.",
        )
    with writing(out):
        parent = next(folder for folder in target.parents if os.path.lexists(folder))
        if parent == target.parent:
            _clean_up(target)
        _refuse_existing(target, overwrite=overwrite)
        missing = target.parent.relative_to(parent).parts
        for name in (*missing, _partial(target).name):
            (parent / name).mkdir()
            (parent / name).rmdir()


@contextlib.contextmanager
def output_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a new folder that becomes `out` when the block ends, and is removed when the block raises.

    Missing parents of `out` are created. What killed runs left beside it is cleaned up first.

    Args:
        out: the folder to be made; it may exist if it is empty.
        overwrite: whether an older distilled data set at `out` may be replaced.

    Raises:
        OutputError: `out` exists and may not be replaced, or cannot be written.
    """
    target = _resolve(out)
    with writing(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(target)
        _refuse_existing(target, overwrite=overwrite)
        partial = _partial(target)
        partial.mkdir()
    try:
        yield partial
        with writing(out):
            _flush(partial)
            _refuse_existing(target, overwrite=overwrite)
            _put_in_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_image(folder: Path, class_name: str, index: int, content: bytes, suffix: str) -> str:
    """Write one encoded mosaic.

    Args:
        folder: the folder given by `output_folder`.
        class_name: the class, which names the image's folder; bytes that are no UTF-8 by surrogateescape.
        index: the mosaic's place within its class, from 0.
        content: the encoded image.
        suffix: `png` or `jpg`.

    Returns:
        The POSIX path within `folder`, such as `images/dress/dress_00000.png`.

    Raises:
        OutputError: it cannot be written.
    """
    if class_name in ("", ".", "..") or {"/", "\0"} & set(class_name):  # of a sidecar, or of other candidates
        raise OutputError(f"The class {class_name!r} cannot name a folder", "Rename it where it comes from.")
    relative = f"{IMAGES}/{class_name}/{class_name}_{index:05d}.{suffix}"
    path = folder / relative
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return relative


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into an OutputError with advice."""
    try:
        yield
    except OSError as error:
        raise refusal(error, f"{path} cannot be written: ") from error


def refusal(error: OSError | MemoryError, what: str = "") -> OutputError:
    """Return what the operating system refuses as an error in words, after `what` could not be done."""
    if isinstance(error, MemoryError):
        return OutputError("The memory is used up", "Use fewer --threads, or a smaller --batch.")
    named = what or (f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else "")
    return OutputError(f"{named}{error.strerror or error}", _ADVICE.get(error.errno or 0, ""))


def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of symbolic links
        raise OutputError(f"The path {path} leads nowhere: {error}") from error


def _refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an empty folder or, if allowed, an older distilled data set."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"The output {target} exists and is not a folder", "Choose another OUT.")
    if target.is_mount():
        raise OutputError(
            f"The output {target} is a mount point, which cannot be replaced whole",
            f"Choose a folder inside it, such as {target / 'distilled'}.",
        )
    entries = list(target.iterdir())
    if not entries:
        return
    if not overwrite:
        raise OutputError(
            f"The output {target} exists and is not empty",
            "Choose another OUT, or pass --overwrite to replace an older distilled data set.",
        )
    harmless = {
        entry.name
        for entry in entries
        if (entry.name in HARMLESS or _is_unfinished(entry.name)) and not entry.is_dir()
    }
    names = {entry.name for entry in entries} - harmless
    ours = _is_our_manifest(target / MANIFEST) and (LABELS not in names or _are_our_labels(target / LABELS))
    if names - {LABELS} != {IMAGES, MANIFEST} or not ours:
        raise OutputError(
            f"The output {target} holds something other than a distilled data set, and is left alone",
            "Choose another OUT, or remove that folder yourself.",
        )


def _is_unfinished(name: str) -> bool:
    """Whether `write_file` gave this name to a report or a sheet, whose process was killed."""
    return name.startswith(".") and name.endswith(".part")


def _is_our_manifest(path: Path) -> bool:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    tool = manifest.get("tool") if isinstance(manifest, dict) else None
    return isinstance(tool, dict) and "fgdd-fast" in tool


def _are_our_labels(folder: Path) -> bool:
    """Whether a folder was made by `fgdd-fast label`; one that was stopped at once left nothing visible."""
    try:
        names = {entry.name for entry in folder.iterdir()}
        index = json.loads((folder / LABEL_INDEX).read_bytes()) if LABEL_INDEX in names else None
    except (OSError, ValueError, RecursionError):
        return False
    if index is None:
        return all(name.startswith(f".{LABELS}.") for name in names)
    return isinstance(index, dict) and {"manifest", "teacher", "files"} <= index.keys()


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial-{os.getpid()}")


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; an older distilled data set there is moved aside, then removed."""
    replaced = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        if target.is_dir() and any(target.iterdir()):
            target.rename(replaced)
        partial.rename(target)  # an empty folder in the way is replaced by the system itself
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    _flush_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Remove what killed runs left beside `target`; bring back an older data set that one had moved away."""
    for kind in ("replaced", "partial"):
        prefix = f".{target.name}.{kind}-"
        for entry in list(target.parent.iterdir()):
            process = entry.name.removeprefix(prefix)
            if process == entry.name or not process.isdecimal() or _is_running(int(process)):
                continue
            if kind == "replaced" and not os.path.lexists(target):
                entry.rename(target)
            else:
                shutil.rmtree(entry, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # an earlier process had this one's id
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _flush(folder: Path) -> None:
    """Bring a folder's files and folders to the disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            _flush_folder(Path(path, name))
        _flush_folder(Path(path))


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
