"""How values that are no numbers lie in the store."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float16]
_FLOAT16 = np.dtype("<f2")  # whatever the machine's byte order
_PNG = (cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9)


def path_key(path: Path) -> bytes:
    """A file's absolute path, as it is on disk."""
    return os.fsencode(path.absolute())


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A PNG of one bit a pixel, from probabilities 0 to 255; most take less than a kilobyte."""
    foreground = np.where(mask > 127, 255, 0).astype(np.uint8)
    return cv2.imencode(".png", foreground, _PNG)[1].tobytes()


def decode_mask(png: bytes) -> NDArray[np.uint8]:
    """The mask, uint8 [height, width], 0 or 255."""
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def encode_hash(perceptual_hash: int) -> bytes:
    """64 bits as 8 bytes; SQLite's own numbers have a sign."""
    return perceptual_hash.to_bytes(8, "big")


def decode_hash(content: bytes) -> int:
    """The 64 bits, as a number from 0."""
    return int.from_bytes(content, "big")


def encode_features(features: Features) -> bytes:
    """Two bytes for each channel."""
    return features.astype(_FLOAT16).tobytes()


def decode_features(content: bytes) -> Features:
    """Features, float16 [channels]."""
    return np.frombuffer(content, _FLOAT16).astype(np.float16)
