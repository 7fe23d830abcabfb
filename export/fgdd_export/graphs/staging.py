"""Make a bundle of several files in a folder of its own, and move it into place once it has passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from fgdd_engines.bundle.bundle import Bundle, sidecar_text
from fgdd_engines.bundle.files import write_file
from fgdd_engines.file_lock import exclusive_lock
from fgdd_fast.errors import BundleError


@contextmanager
def staging_folder(onnx: Path) -> Iterator[Path]:
    """A folder on the same disk as the bundle's place, removed at the end whatever happens.

    What an export of the same bundle left there that was killed is removed at the beginning.

    Yields:
        The path for the ONNX file within it.

    Raises:
        BundleError: the bundle's folder cannot be written, or another process writes the bundle.
    """

    def refuse() -> NoReturn:
        raise BundleError(
            f"Another process is writing the bundle {onnx}", "Wait for it, or name another place."
        )

    try:
        onnx.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(onnx.parent, onnx.stem, refuse) as folder:
            yield folder / onnx.name
    except OSError as error:
        raise BundleError(
            f"The bundle {onnx} cannot be written: {error.strerror}",
            "Free some space, or name another place.",
        ) from error


def publish(staged: Bundle, onnx: Path, parity: Mapping[str, Any]) -> Bundle:
    """Move a staged bundle with its parts and files into place; its own sidecar comes last.

    Until then the old sidecar's hashes refuse the new files, so no mixture of two bundles is ever used.

    Args:
        staged: in its staging folder.
        onnx: where the ONNX file goes; everything else goes beside it.
        parity: replaces the staged one.

    Returns:
        The bundle in its place.
    """
    bundle = replace(staged, onnx=onnx, parity=parity)
    beside = [f"{part}.{suffix}" for part in staged.parts for suffix in ("onnx", "json")]
    for name in (*beside, *staged.files):
        staged.beside(name).replace(bundle.beside(name))
    staged.onnx.replace(onnx)
    write_file(bundle.sidecar, sidecar_text(bundle))
    return bundle
