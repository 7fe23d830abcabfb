"""Export one PyTorch network and write it as a bundle; bundles of several files are published whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fgdd_engines.bundle.bundle import Bundle, Role, sidecar_text, write_bundle
from fgdd_engines.bundle.files import write_file
from fgdd_engines.file_lock import exclusive_lock
from fgdd_export.graphs.graph import bundle_of, serialise
from fgdd_fast.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

    from fgdd_export.graphs.torch_export import Network


@dataclass(frozen=True)
class Origin:
    """Where a bundle's weights come from.

    Attributes:
        source: checkpoints and the like; see `Bundle.source`.
        licence: SPDX identifier.
    """

    source: Mapping[str, Any]
    licence: str


def write_network(
    onnx: Path,
    role: Role,
    network: Network,
    example: Sequence[Tensor],
    *,
    origin: Origin,
    parts: Mapping[str, Bundle] | None = None,
    **more: Any,
) -> Bundle:
    """Export a network (see `export_network`) and write its bundle at `onnx`; see `Bundle`.

    Args:
        origin: where the weights come from; how long the export took is added.
        parts: bundles that lie beside it already, by name.
        more: `preprocessing` and what else it has of `Bundle`.

    Raises BundleError where the network cannot be exported as it is declared.
    """
    from fgdd_export.graphs.torch_export import export_network  # noqa: PLC0415 - imports torch

    exported = export_network(network, example)
    bundle = bundle_of(
        exported.model,
        onnx,
        role,
        source={**origin.source, "export": exported.making},
        licence=origin.licence,
        parts={name: part.sha256 for name, part in (parts or {}).items()},
        **more,
    )
    return write_bundle(bundle, serialise(exported.model))


def normalisation(mean: Sequence[float], std: Sequence[float]) -> str:
    """What a graph does to its pixels, in words."""
    return f"(value / 255 - {_listed(mean)}) / {_listed(std)}, each channel for itself"


def _listed(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


@contextmanager
def staging_folder(onnx: Path) -> Iterator[Path]:
    """Give the ONNX file's path in a folder on the same disk, which is removed at the end whatever happens.

    What an export of the same bundle left there that was killed is removed at the beginning. Raises
    BundleError where the bundle's folder cannot be written, or another process writes the bundle.
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
