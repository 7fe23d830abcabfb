"""A distilled data set held against its manifest, its hashes, and the photographs behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import DataError, FgddError
from fgdd_fast.images.dataset import locate
from fgdd_fast.images.decode import decode_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.index import read_index
from fgdd_fast.labels.stored import check_subject, find_damage
from fgdd_fast.output.distilled import DistilledSet, open_distilled, split_tiles
from fgdd_fast.output.folder import HASHES, LABEL_INDEX, LABELS, MANIFEST
from fgdd_fast.output.hashes import read_hashes
from fgdd_fast.output.mosaic import encode
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.trust.remaking import TileCutter, image_format

Code = Literal["image", "manifest", "source", "tile", "labels"]
ROUNDING = 1.0  # mean levels by which another version of OpenCV may decode and resize a tile otherwise


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        code: `image`, a mosaic's file that is damaged or not the one that was written or labelled;
            `manifest`, the manifest is not the one that was written, or the file of hashes is damaged;
            `source`, a photograph that is missing or another one; `tile`, a part of a mosaic that is not
            what its photograph gives; `labels`, stored labels that are damaged or of something else.
        file: POSIX path within OUT or, of a `source`, within DATA.
        problem: what is wrong, in words.
    """

    code: Code
    file: str
    problem: str


@dataclass(frozen=True)
class Verified:
    """What was checked, and what was found.

    Attributes:
        images: mosaics whose files were read and decoded.
        hashed: of them, those held against a hash, which `OUT/SHA256SUMS` and stored labels have.
        remade: tiles that were made anew from their photographs.
        rounded: of them, those that differ by rounding alone, made by another version of OpenCV.
        label_files: files of labels held against their hashes.
        findings: all that is wrong, in the order of the manifest.
    """

    images: int
    hashed: int
    remade: int
    rounded: int
    label_files: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings]}


def verify(
    out: str | Path,
    data: str | Path | None = None,
    *,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Verified:
    """Check a distilled data set that somebody received: every file of it, and nothing else.

    The files are those that the manifest lists, whole, of its size, and with the hashes in `OUT/SHA256SUMS`
    where that is there, as it is since 0.2.0. Stored labels have hashes of images and of manifest as well.
    With DATA every tile is made anew from its photograph, whose hash the manifest has, and compared: exactly
    where the manifest names this version of OpenCV, else but for rounding.

    Args:
        out: the folder of the distilled data set.
        data: the folder or the list of the photographs; without it no tile is made anew.
        threads: files read at once; all processors by default.
        progress: told of each mosaic.

    Returns:
        What was checked, with all that is wrong.

    Raises:
        DataError: OUT is no distilled data set: its manifest is damaged, or files are missing or foreign.
    """
    distilled = open_distilled(out)
    cutter = None
    if data is not None:
        cutter = TileCutter(distilled.manifest, distilled.size, distilled.factor, locate(Path(data)))
    workers = threads or available_processors()
    hashes, of_manifest = _read_hashes(distilled)

    def check(index: int) -> _OfImage:
        return _check_image(distilled, index, cutter, hashes)

    found: list[_OfImage] = []
    with (
        progress.task("Verifying", len(distilled)) as task,
        single_threaded_opencv(),
        ThreadPoolExecutor(workers, "verify") as executor,
    ):
        for each in ordered_map(executor, check, range(len(distilled)), 2 * workers):
            found.append(each)
            task.advance()
    label_files, labelled, of_labels = _check_labels(distilled)
    return Verified(
        images=len(found),
        hashed=max(labelled, len(found) if hashes else 0),
        remade=sum(each.remade for each in found),
        rounded=sum(each.rounded for each in found),
        label_files=label_files,
        findings=(*of_manifest, *(finding for each in found for finding in each.findings), *of_labels),
    )


@dataclass(frozen=True)
class _OfImage:
    """What was found in one mosaic."""

    findings: Sequence[Finding] = ()
    remade: int = 0
    rounded: int = 0


def _read_hashes(distilled: DistilledSet) -> tuple[dict[str, str], list[Finding]]:
    """The hash of each file, empty where none were written; and what is wrong with the manifest."""
    try:
        hashes = read_hashes(distilled.folder)
    except DataError as error:
        return {}, [Finding("manifest", HASHES, error.problem)]
    if hashes is None or hashes.get(MANIFEST) == file_sha256(distilled.folder / MANIFEST):
        return hashes or {}, []
    return hashes, [Finding("manifest", MANIFEST, f"is not the one that {HASHES} was written for")]


def _check_image(
    distilled: DistilledSet, index: int, cutter: TileCutter | None, hashes: Mapping[str, str]
) -> _OfImage:
    """Check one mosaic; runs in a thread."""
    image = distilled.manifest.images[index]
    try:
        written = distilled.read(index)
    except DataError as error:
        return _OfImage([Finding("image", image.file, error.problem)])
    if hashes and hashes.get(image.file) != file_sha256(distilled.folder / image.file):
        return _OfImage([Finding("image", image.file, f"is not the one that {HASHES} was written for")])
    if cutter is None:
        return _OfImage()
    made, findings = [], []
    for tile in image.tiles:
        try:
            made.append(cutter.tile(tile))
        except DataError as error:
            findings.append(Finding("source", tile.source, error.problem))
    if findings:
        return _OfImage(findings)
    mosaic = cutter.join(made)
    if image_format(image) != "png":
        mosaic = decode_image(encode(mosaic, image_format(image)))
    exact = distilled.manifest.tool.get("opencv") == cv2.__version__
    differences = list(_differences(written, mosaic, cutter.factor))
    return _OfImage(
        [
            Finding(
                "tile", image.file, f"tile {place} is not what {tile.source!r} gives: {mean:.2g} levels off"
            )
            for place, (tile, mean) in enumerate(zip(image.tiles, differences, strict=True))
            if mean > (0 if exact else ROUNDING)
        ],
        remade=len(made),
        rounded=0 if exact else sum(0 < mean <= ROUNDING for mean in differences),
    )


def _differences(written: Pixels, made: Pixels, factor: int) -> Iterator[float]:
    """The mean difference of each tile, in levels of 255."""
    for one, other in zip(split_tiles(written, factor), split_tiles(made, factor), strict=True):
        yield float(np.abs(one.astype(np.int16) - other).mean())


def _check_labels(distilled: DistilledSet) -> tuple[int, int, list[Finding]]:
    """How many files of labels there are, how many images they have hashes of, and what is wrong."""
    folder = distilled.folder / LABELS
    if not (folder / LABEL_INDEX).exists():
        return 0, 0, []
    try:
        index = read_index(folder / LABEL_INDEX)
        check_subject(index, distilled)
    except FgddError as error:
        return 0, 0, [Finding("labels", f"{LABELS}/{LABEL_INDEX}", error.problem)]
    damage = ((name, find_damage(folder / name, file, hashed=True)) for name, file in index.files.items())
    findings = [Finding("labels", f"{LABELS}/{name}", problem) for name, problem in damage if problem]
    return len(index.files), len(distilled), findings
