"""What the bytes of an image file say about it, read without decoding it.

The sources are the formats' own specifications: JPEG (ITU-T T.81), PNG (W3C, third edition, with APNG),
GIF89a, WebP (RFC 9649), TIFF 6.0, Exif 2.3, Netpbm, and Microsoft's BITMAPV5HEADER.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fgdd_fast.errors import ImageError

Format = Literal["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "PNM"]


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says about itself.

    Attributes:
        format: the file's format; PNM stands for PBM, PGM and PPM.
        width, height: pixels as stored, before the orientation is applied; at least 1.
        bit_depth: bits of a sample or, with a palette, of an index.
        has_alpha: whether there may be transparency, in a channel, a palette or as a colour.
        animated: whether there is more than one frame. Pages of a TIFF are no frames.
        orientation: of the Exif standard, 1 to 8; 1 is upright.
        grey_key: the sample of a grey PNG that is transparent, where one is.
        pages: whether there are further pages, which is told of a TIFF alone.
        ended: whether the end of the picture is marked; only a JPEG may be read without.
    """

    format: Format
    width: int
    height: int
    bit_depth: int = 8
    has_alpha: bool = False
    animated: bool = False
    orientation: int = 1
    grey_key: int | None = None
    pages: bool = False
    ended: bool = True

    @property
    def decoded_bytes(self) -> int:
        """What the decoded pixels take in memory: 3 or, with transparency, 4 samples a pixel."""
        samples = 4 * (2 if self.bit_depth > 8 else 1) if self.has_alpha else 3
        return self.width * self.height * samples


def read_header(content: bytes) -> Header:
    """Read the header of a JPEG, PNG, GIF, WebP, BMP, TIFF or PNM file.

    JPEG, PNG, GIF and WebP are followed to their end, so that a truncated one is found. What comes after the
    end (the further pictures of an MPO file, for example) is ignored, as are further pages of a TIFF. Of a
    JPEG without the marker of its end, as some cameras write them, only decoding tells whether it is whole.

    Args:
        content: the whole file.

    Raises:
        ImageError: no image, a damaged header, or a truncated file.
    """
    if not content:
        raise ImageError("empty file")
    for signature, image_format, read in _READERS:
        if signature.match(content):
            try:
                header = read(content)
            except (struct.error, IndexError) as error:
                raise ImageError(f"truncated {image_format}") from error
            if header.width < 1 or header.height < 1:
                raise ImageError(f"damaged {image_format}: no pixels")
            return header
    raise ImageError("not an image of a known format")


# A marker that is neither an escaped 0xFF, a fill byte, nor one of the restarts within a scan.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL, _JPEG_HUFFMAN = (0xC0, 0xC1), (0xC0, 0xC1, 0xC2)
_JPEG_START, _JPEG_END, _JPEG_SCAN, _JPEG_APP1, _JPEG_TEMPORARY = 0xD8, 0xD9, 0xDA, 0xE1, 0x01


def _read_jpeg(content: bytes) -> Header:
    frame, kind = b"", 0
    exif = b""
    scanned: set[int] = set()  # components of which there is data
    position = 2
    ended = False
    while marker := _JPEG_MARKER.search(content, position):
        code, position = marker[1][0], marker.end()
        if code == _JPEG_END:
            ended = True
            break
        if code in (_JPEG_START, _JPEG_TEMPORARY):
            continue
        (length,) = struct.unpack_from(">H", content, position)
        segment = content[position + 2 : position + length]
        if code in _JPEG_FRAMES and not frame:
            frame, kind = segment, code
        elif code == _JPEG_APP1 and not exif and segment.startswith(b"Exif\0\0"):
            exif = segment[6:]
        elif code == _JPEG_SCAN:
            scanned.update(segment[1 : 1 + 2 * segment[0] : 2])
        position += length
    components = set(frame[6::3])
    whole = kind in _JPEG_SEQUENTIAL and scanned == components and position < len(content)
    if not ended and not whole:  # of the other kinds nothing tells whether another scan would follow
        raise ImageError("truncated JPEG")
    if not frame or not scanned:
        raise ImageError("damaged JPEG: no picture in it")
    bit_depth, height, width = struct.unpack_from(">BHH", frame)
    if kind in _JPEG_HUFFMAN and _jpeg_blocks(frame) > 8 * len(content):
        raise ImageError(f"damaged JPEG: {len(content)} bytes cannot hold {width} x {height} pixels")
    return Header("JPEG", width, height, bit_depth, orientation=_exif_orientation(exif), ended=ended)


def _jpeg_blocks(frame: bytes) -> int:
    """Blocks of 8 x 8 samples of a frame, each of which takes at least one bit of a Huffman code."""
    height, width = struct.unpack_from(">HH", frame, 1)
    factors = [(byte >> 4, byte & 15) for byte in frame[7::3]]
    across, down = (max((factor[axis] for factor in factors), default=1) or 1 for axis in (0, 1))
    return sum(-(-width * x // (8 * across)) * -(-height * y // (8 * down)) for x, y in factors)


def _read_png(content: bytes) -> Header:
    width, height, bit_depth, colour_type = struct.unpack_from(">IIBB", content, 16)
    if content[12:16] != b"IHDR":
        raise ImageError("damaged PNG: it does not begin with IHDR")
    has_alpha, animated, exif, grey_key = colour_type in (4, 6), False, b"", None
    position = 8
    while (name := content[position + 4 : position + 8]) != b"IEND":
        (length,) = struct.unpack_from(">I", content, position)
        if name == b"tRNS":
            has_alpha = True
            grey_key = struct.unpack_from(">H", content, position + 8)[0] if colour_type == 0 else None
        elif name == b"acTL":
            animated = struct.unpack_from(">I", content, position + 8)[0] > 1
        elif name == b"eXIf":
            exif = content[position + 8 : position + 8 + length]
        position += length + 12
    if position + 12 > len(content):
        raise ImageError("truncated PNG")
    orientation = _exif_orientation(exif)
    return Header("PNG", width, height, bit_depth, has_alpha, animated, orientation, grey_key)


_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER, _GIF_CONTROL = 0x21, 0x2C, 0x3B, 0xF9


def _read_gif(content: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    bit_depth = (flags & 7) + 1
    position = 13 + _gif_palette(flags)
    transparent = False
    frames = 0
    while (block := content[position]) != _GIF_TRAILER:
        if block == _GIF_EXTENSION:
            if content[position + 1] == _GIF_CONTROL:
                transparent = transparent or bool(content[position + 3] & 1)
            position += 2
        elif block == _GIF_IMAGE:
            frames += 1
            if frames > 1:
                break
            *frame, flags = struct.unpack_from("<HHHHB", content, position + 1)
            transparent = transparent or frame != [0, 0, width, height]  # the rest of the canvas shows
            position += 11 + _gif_palette(flags)
        else:
            raise ImageError("damaged GIF: unknown block")
        while length := content[position]:
            position += length + 1
        position += 1
    if frames == 0:
        raise ImageError("damaged GIF: no picture in it")
    return Header("GIF", width, height, bit_depth, has_alpha=transparent, animated=frames > 1)


def _gif_palette(flags: int) -> int:
    """Bytes of the colour table that a descriptor's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _read_webp(content: bytes) -> Header:
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 > len(content):
        raise ImageError("truncated WebP")
    canvas: tuple[int, int] | None = None
    has_alpha, frames, exif = False, 0, b""
    for name, start, size in _webp_chunks(content, length + 8):
        if name == b"VP8X" and start == _WEBP_FIRST:  # anywhere else decoders pass it over
            has_alpha = has_alpha or bool(content[start] & 0x10)
            width, height = (int.from_bytes(content[start + at : start + at + 3], "little") for at in (4, 7))
            canvas = width + 1, height + 1
        elif name == b"VP8 ":
            width, height = struct.unpack_from("<HH", content, start + 6)
            canvas = canvas or (width & 0x3FFF, height & 0x3FFF)
        elif name == b"VP8L":
            (packed,) = struct.unpack_from("<I", content, start + 1)
            canvas = canvas or ((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
            has_alpha = has_alpha or bool(packed >> 28 & 1)
        elif name == b"ANMF":
            frames += 1
        elif name == b"EXIF":
            exif = content[start : start + size].removeprefix(b"Exif\0\0")
    if canvas is None:
        raise ImageError("damaged WebP: no picture in it")
    return Header("WebP", *canvas, 8, has_alpha, frames > 1, _exif_orientation(exif))


_WEBP_FIRST = 20  # where the first chunk's data begin


def _webp_chunks(content: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and size of each chunk's data."""
    position = 12
    while position + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, position)
        yield name, position + 8, size
        position += 8 + size + size % 2


def _read_bmp(content: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", content, 14)
    if header_size == 12:
        width, height, _, pixel_bits = struct.unpack_from("<HHHH", content, 18)
        return Header("BMP", width, height, min(pixel_bits, 8))
    width, height, _, pixel_bits, compression = struct.unpack_from("<iiHHI", content, 18)
    has_alpha = False
    if header_size >= 56 and compression == 3:  # the channels' places are given
        has_alpha = struct.unpack_from("<I", content, 66)[0] != 0
    return Header("BMP", width, abs(height), min(pixel_bits, 8), has_alpha)


_TIFF_LARGEST_TILE = 1 << 26  # pixels; decoders hold a whole tile, however small the picture


def _read_tiff(content: bytes) -> Header:
    tags, following = _tiff_directory(content)
    try:
        width, height = tags[256][0], tags[257][0]
    except (KeyError, IndexError) as error:
        raise ImageError("damaged TIFF: no size in it") from error
    tile_width, tile_height = (max(tags.get(tag, ()), default=0) for tag in (322, 323))
    if tile_width * tile_height > max(width * height, _TIFF_LARGEST_TILE):
        raise ImageError(f"too large: TIFF with tiles of {tile_width} x {tile_height} pixels")
    bit_depth = max(tags.get(258, ()), default=1)
    has_alpha = any(extra in (1, 2) for extra in tags.get(338, ()))
    orientation = _orientation(tags)
    return Header("TIFF", width, height, bit_depth, has_alpha, orientation=orientation, pages=following > 0)


_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I"}


def _tiff_directory(content: bytes) -> tuple[dict[int, tuple[int, ...]], int]:
    """Whole numbers in the first directory of a TIFF structure, by tag, and where the next one is, or 0.

    Of a tag that comes twice the first counts, as it does for decoders. One of an odd type or length, which
    decoders may take all the same, gives no number.
    """
    order = "<" if content[:1] == b"I" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    tags: dict[int, tuple[int, ...]] = {}
    end = start + 2 + 12 * count
    for at in range(start + 2, end, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", content, at)
        if kind not in _TIFF_INTEGERS or length > 16:  # none of the tags wanted is longer
            tags.setdefault(tag, ())
            continue
        layout = f"{order}{length}{_TIFF_INTEGERS[kind]}"
        place = at + 8
        if struct.calcsize(layout) > 4:
            (place,) = struct.unpack_from(order + "I", content, place)
        tags.setdefault(tag, struct.unpack_from(layout, content, place))
    following = content[end : end + 4]
    return tags, int.from_bytes(following, "little" if order == "<" else "big")


def _exif_orientation(exif: bytes) -> int:
    """Orientation in an Exif block; 1 where it says none, or is damaged."""
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        return _orientation(_tiff_directory(exif)[0])
    except struct.error:
        return 1


def _orientation(tags: dict[int, tuple[int, ...]]) -> int:
    value = next(iter(tags.get(274, ())), 1)
    return value if value in range(1, 9) else 1


# Kind, width, height and (but for bitmaps) greatest value, with spaces and comments between.
_PNM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM_BITMAP = re.compile(rb"P[14]" + _PNM_GAP + rb"(\d{1,9})" + _PNM_GAP + rb"(\d{1,9})\s")
_PNM_LEVELS = re.compile(
    rb"P[2356]" + _PNM_GAP + rb"(\d{1,9})" + _PNM_GAP + rb"(\d{1,9})" + _PNM_GAP + rb"(\d{1,9})\s"
)
_PNM_LONGEST = 65536  # bytes of a header with all its comments


def _read_pnm(content: bytes) -> Header:
    if bitmap := _PNM_BITMAP.match(content, 0, _PNM_LONGEST):
        return Header("PNM", int(bitmap[1]), int(bitmap[2]), 1)
    levels = _PNM_LEVELS.match(content, 0, _PNM_LONGEST)
    if levels is None:
        raise ImageError("damaged PNM: no size in it")
    depths = {255: 8, 65535: 16}
    greatest = int(levels[3])
    if greatest not in depths:  # OpenCV would not scale the values
        raise ImageError(f"PNM with values up to {greatest}; 255 and 65535 can be read")
    return Header("PNM", int(levels[1]), int(levels[2]), depths[greatest])


_READERS = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", _read_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", _read_png),
    (re.compile(rb"GIF8[79]a"), "GIF", _read_gif),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WebP", _read_webp),
    (re.compile(rb"II\*\0|MM\0\*"), "TIFF", _read_tiff),
    (re.compile(rb"BM"), "BMP", _read_bmp),
    (re.compile(rb"P[1-6]\s"), "PNM", _read_pnm),
)
