"""Grounded SAM 2 at the published sizes, with random weights: checkpoints, and the bundle exported from them.

Its times are those of a trained one, and what it finds means nothing: it scores nearly everything above any
threshold, so that as many boxes are segmented in each image as are taken of one at the most.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import fgdd_export
from fgdd_bench.references.grounded.random_networks import write_checkpoints
from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.paths import cache_folder
from fgdd_export.grounded_sam2.bundle import GroundedSettings, export_grounded_sam2
from fgdd_export.grounding_dino.bundle import DetectorSettings
from fgdd_fast.runtime.sample_images import check_images

SIZE = "tiny"  # of both networks
SETTINGS = GroundedSettings(DetectorSettings(), boxes=8, split=False)
_BUNDLE = "grounded-sam2-random.onnx"
_PACKAGES = ("torch", "transformers", "onnx", "onnxslim")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RandomGrounded:
    """Grounding DINO and SAM 2.1 with random weights: folders of both, and the bundle exported from them."""

    checkpoints: tuple[str, str]
    bundle: Bundle


def random_grounded(folder: Path | None = None) -> RandomGrounded:
    """Return the networks; made once, and kept for as long as what they depend on stays as it is.

    Making them takes five minutes, 8 GB of memory and 1.7 GB of the disk.

    Args:
        folder: where they are kept; in the cache folder by default.

    Raises:
        BundleError: they cannot be written.
    """
    folder = folder or cache_folder() / "benchmarks"
    place = folder / f"grounded-sam2-random-{_key()}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(
            folder, place.name, lambda: _log.info("Another process makes them: waiting")
        ) as staging:
            if not place.exists():
                _make(staging / "whole")
                (staging / "whole").rename(place)
    return RandomGrounded(_checkpoints(place), load_bundle(place / _BUNDLE, "foreground"))


def _make(folder: Path) -> None:
    _log.info("Making networks with random weights")
    write_checkpoints(folder, SIZE, SIZE)
    export_grounded_sam2(
        *_checkpoints(folder),
        folder / _BUNDLE,
        SETTINGS,
        check=check_images(None, 1, {}),
        licence="CC0-1.0",
        threads=1,
        force=True,  # such networks have near-ties, which fall either way
    )


def _checkpoints(folder: Path) -> tuple[str, str]:
    """Return where `write_checkpoints` puts them."""
    return str(folder / f"grounding-dino-{SIZE}"), str(folder / f"sam2.1-hiera-{SIZE}")


def _key() -> str:
    """Return the hash of all that the networks and their export depend on."""
    digest = hashlib.sha256(json.dumps([SIZE, asdict(SETTINGS), *map(version, _PACKAGES)]).encode())
    exporter = Path(str(fgdd_export.__file__)).parent
    for path in (*sorted(exporter.rglob("*.py")), Path(__file__).with_name("random_networks.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
