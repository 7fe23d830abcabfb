"""Does the project install on aarch64, and decide there as on x86-64?

    benchmarks/studies/emulated_aarch64.sh aarch64.json

The script makes what this module then compares. Kept result: `aarch64.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import Study, study
from fgdd_fast.errors import DataError
from fgdd_fast.images.decode import read_image
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.selection.records import Tile

REFERENCE = "x86-64"
BOARD_RUNS = ("aarch64-onnxruntime", "aarch64-openvino")


COLUMNS = {
    "run": "",
    "same_decisions": "",
    "tiles": "d",
    "tiles_that_differ": "d",
    "largest_occupancy_difference": ".3g",
    "largest_loss_difference": ".3g",
    "largest_pixel_difference": "d",
}


@study
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--emulator", required=True, help="Its version, and the processor that it emulates.")
@click.option("--system", required=True, help="What runs in it.")
@click.option("--commit", required=True, help="Of the project's source that was installed.")
def main(study: Study, folder: Path, emulator: str, system: str, commit: str) -> None:
    """Write the result from what the script left in FOLDER; fail where a decision differs."""
    reference = folder / "x86-64" / REFERENCE
    manifest = read_manifest(reference)
    board = folder / "root" / "board"
    runs = {name: board / name for name in BOARD_RUNS}
    pairs = {name: (reference, distilled) for name, distilled in runs.items()}
    pairs[f"{BOARD_RUNS[0]}, stream"] = streams = (reference.with_name("stream"), board / "stream")
    rows = [{"run": name, **compare(*pair)} for name, pair in pairs.items()]
    study.report(
        rows,
        COLUMNS,
        commit=commit,
        emulator=emulator,
        emulated_system=system,
        pictures=manifest.image_count,
        frames=read_manifest(streams[0]).image_count,
        settings=dict(manifest.settings),
        models={role: vars(model) for role, model in manifest.models.items()},
        installs={name: _install(folder, name) for name in ("x86-64", "aarch64")},
        runs={
            name: {
                "runtime": read_manifest(distilled).tool["runtime"],
                "seconds": _seconds(folder / f"{name}.seconds"),
                "environment": _json(folder / f"{name}.environment.json"),
            }
            for name, distilled in {REFERENCE: reference, **runs}.items()
        },
    )
    if not all(row["same_decisions"] for row in rows):
        raise DataError("The decisions differ from those on x86-64", "The table says where.")


def compare(reference: Path, distilled: Path) -> dict[str, Any]:
    """Compare a distilled data set with a reference: in decisions, numbers and pixels.

    Returns:
        `same_decisions`: whether every cell of every mosaic shows the same box of the same image, by the
        same path; `tiles`, how many of them differ, and how many are whole images; the largest differences
        in occupancy and threshold (shares), loss (nats) and pixels of the mosaics (grey levels), occupancy
        and loss over the tiles that do not differ.
    """
    expected, found = (read_manifest(folder) for folder in (reference, distilled))
    pairs = list(zip(_tiles(expected), _tiles(found), strict=True))
    same = [(one, other) for one, other in pairs if _decision(one) == _decision(other)]
    pixels = [
        int(np.abs(_pixels(reference / image.file) - _pixels(distilled / image.file)).max())
        for image in expected.images
    ]
    return {
        "same_decisions": len(same) == len(pairs),
        "tiles": len(pairs),
        "tiles_that_differ": len(pairs) - len(same),
        "whole_tiles": sum(one.kind == "full" for one, _ in pairs),
        "largest_occupancy_difference": max((abs(a.occupancy - b.occupancy) for a, b in same), default=None),
        "largest_threshold_difference": max(
            abs(value - found.thresholds[name]) for name, value in expected.thresholds.items()
        ),
        "largest_loss_difference": max((abs(a.loss - b.loss) for a, b in same), default=None),
        "largest_pixel_difference": max(pixels),
    }


def _tiles(manifest: Manifest) -> Iterator[Tile]:
    for image in manifest.images:
        yield from image.tiles


def _decision(tile: Tile) -> tuple[object, ...]:
    return tile.source, tile.sha256, tile.box, tile.kind


def _pixels(path: Path) -> NDArray[np.int16]:
    return read_image(path).pixels.astype(np.int16)


def _install(folder: Path, name: str) -> dict[str, Any]:
    """What was installed at each step, and how long that took."""
    steps = {step: _packages(folder / f"{name}.{step}.json") for step in ("base", "cpu")}
    seconds = _seconds(folder / f"{name}.seconds")
    return {"seconds": {step: seconds[f"{step} install"] for step in steps}, "packages": steps}


def _packages(path: Path) -> dict[str, str]:
    return {entry["name"]: entry["version"] for entry in _json(path)}


def _seconds(path: Path) -> dict[str, int]:
    """Seconds by step, from lines such as `base install 12`."""
    lines = (line.rpartition(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {step: int(seconds) for step, _, seconds in lines}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
