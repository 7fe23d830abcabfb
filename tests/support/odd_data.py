"""Small folders of images with something odd about each."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.checking.findings import Finding

SIDE = 128


def picture(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """uint8 RGB [side, side, 3]: coloured discs on a ground; another picture for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(8):
        middle = tuple(int(value) for value in rng.integers(0, SIDE, 2))
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.circle(pixels, middle, int(rng.integers(8, 40)), colour, -1)
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def put(file: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16], suffix: str = "") -> Path:
    """Write an image, in the format of another suffix than its own if one is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written, content = cv2.imencode(suffix or file.suffix, pixels)
    assert written
    file.write_bytes(content.tobytes())
    return file


def put_pictures(root: Path, names: Mapping[str, Sequence[str]]) -> Path:
    """Write other pictures into `root/<class>/<name>`, all different, of the format of each name's suffix."""
    seed = zlib.crc32(root.name.encode())
    for class_name, files in names.items():
        for file in files:
            put(root / class_name / file, picture(seed))
            seed += 1
    return root


def numbered(count: int, form: str = "photo-{}.png") -> list[str]:
    """Names of files that no check takes for frames of recordings."""
    return [form.format(chr(ord("a") + place)) for place in range(count)]


def codes(findings: Sequence[Finding]) -> list[str]:
    """The codes of findings, each once, sorted."""
    return sorted({finding.code for finding in findings})


def only(findings: Sequence[Finding], code: str) -> Finding:
    """The one finding of a code."""
    (found,) = (finding for finding in findings if finding.code == code)
    return found
