"""Which files are images: told by their suffix, and by their first bytes where the suffix says nothing.

A file of an image's suffix is taken for one without being opened. Of any other file the first bytes are
read, so that a photograph called `1.jfif`, `1` or `1.jpg_large` is found, and one called `1.heic` that is a
JPEG in truth.
"""

from __future__ import annotations

import os
import re
from typing import Literal

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
UNREADABLE_SUFFIXES = frozenset(
    {
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".svg",
        ".psd",
        ".exr",
        ".hdr",
        ".raw",
        ".dng",
        ".cr2",
        ".nef",
    }
)
SIGNATURE = 32  # bytes at the beginning of a file that tell its format

# Each format by its signature; raw photographs are TIFF files by theirs.
_FORMATS = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"(?:II\*\0|MM\0\*)"), "TIFF"),
    (re.compile(rb"P[1-6]\s"), "PNM"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"\0\0\x01\0[^\0]\0"), "ICO"),
)
UNREADABLE = frozenset({"AVIF", "HEIC", "JPEG XL", "JPEG 2000", "PSD", "ICO"})
# Formats that are believed whatever the suffix; two letters at the beginning of a text are not enough.
_BELIEVED = frozenset({"JPEG", "PNG", "GIF", "WebP", "BMP"})
_BELIEVED_OF = frozenset({("TIFF", ""), ("PNM", ".pbm"), ("PNM", ".pnm")})
_SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WebP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PNM": (".ppm", ".pgm", ".pbm", ".pnm"),
}

Kind = Literal["image", "unreadable", "other"]


def format_of(head: bytes) -> str:
    """Return the format that the first bytes of a file announce, as in `JPEG`; empty where they tell none."""
    return next((name for signature, name in _FORMATS if signature.match(head)), "")


def has_suffix_of(name: str, image_format: str) -> bool:
    """Whether a file's name ends as files of a format do."""
    return suffix_of(name) in _SUFFIXES_OF.get(image_format, ())


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million Paths are slow


def is_image_by_name(name: str) -> bool:
    """Whether a file is taken for an image without being opened."""
    return suffix_of(name) in SUFFIXES


def kind_of(name: str, head: bytes) -> tuple[Kind, str]:
    """Tell a file that is no image by its name from its first bytes.

    Args:
        name: of the file.
        head: at least its first `SIGNATURE` bytes, or all of it.

    Returns:
        The kind, and why an image cannot be read; empty for other kinds.
    """
    suffix, found = suffix_of(name), format_of(head)
    if (
        found in _BELIEVED
        or (found == "TIFF" and not suffix)
        or (found == "PNM" and suffix in (".pbm", ".pnm"))
    ):
        return "image", ""
    if suffix in UNREADABLE_SUFFIXES:
        return "unreadable", f"images of the format {suffix} cannot be read"
    if found in UNREADABLE:
        return "unreadable", f"images of the format {found} cannot be read"
    return "other", ""
