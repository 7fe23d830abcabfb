"""One picture to check a run by eye: each class's images with what was decided, beside the mosaics."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.images.crops import Box
from fgdd_fast.models.foreground import ScoredBox
from fgdd_fast.selection.records import TileKind

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Corners = tuple[int, int, int, int]

MAX_HEIGHT = 30_000  # pixels; many viewers refuse more than 32,767

PAPER: Colour = (255, 255, 255)
CARD: Colour = (243, 244, 246)
RULE: Colour = (222, 224, 228)
INK: Colour = (31, 35, 41)
FAINT: Colour = (104, 111, 121)
FOREGROUND: Colour = (255, 214, 10)
KIND_COLOURS: dict[TileKind, Colour] = {"full": (0, 138, 92), "crop": (214, 31, 105)}

_KIND_WORDS: dict[TileKind, str] = {"full": "whole", "crop": "crop"}
_KIND_MEANINGS: dict[TileKind, str] = {"full": "kept whole", "crop": "chosen crop"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FINE = 4  # outlines are found at this many times a thumbnail's resolution
_MARGIN = 36
_GAP = 14
_CAPTION = 50
_HEADER = 124
_CLASS_TITLE = 54
_FOOTER = 56
_MIN_WIDTH = 760


@dataclass(frozen=True)
class SheetSource:
    """A source image and what was decided about it.

    Attributes:
        pixels: uint8 RGB [height, width, 3].
        mask: uint8 of any resolution, stretched over the image; above 127 is foreground. None: not known.
        box: the part of the image that was chosen, in its pixels.
        kind: "full" where the image was kept whole, "crop" where a part of it was.
        occupancy: the foreground's share of the image, in [0, 1].
        loss: the teacher's cross-entropy (nats) on the chosen part.
        found: boxes of the objects that the foreground model found.
    """

    pixels: Pixels
    mask: Pixels | None
    box: Box
    kind: TileKind
    occupancy: float
    loss: float
    found: Sequence[ScoredBox] = ()


@dataclass(frozen=True)
class SheetClass:
    """A class of the contact sheet.

    Attributes:
        name: any text; shown in ASCII, shortened where it is too long.
        threshold: an image is kept whole from this occupancy on.
        tiles: how many tiles the class's mosaics hold.
        whole_tiles: how many of these are whole images.
        sources: source images, in the order in which they are shown.
        mosaics: uint8 RGB [height, width, 3] each.
    """

    name: str
    threshold: float
    tiles: int
    whole_tiles: int
    sources: Sequence[SheetSource]
    mosaics: Sequence[Pixels]


@dataclass(frozen=True)
class _Layout:
    """How many thumbnails, of how many pixels, stand where."""

    columns: int
    mosaic_columns: int
    rows: int
    thumb: int

    def corner(self, row: int, column: int, *, left: int) -> tuple[int, int]:
        """x and y of a thumbnail's square within a class's band, in a group that begins at `left`."""
        return left + column * (self.thumb + _GAP), _CLASS_TITLE + row * (self.thumb + _CAPTION)

    @property
    def mosaics_left(self) -> int:
        return _MARGIN + self.columns * (self.thumb + _GAP) + _GAP

    @property
    def width(self) -> int:
        return max(_MIN_WIDTH, self.mosaics_left + self.mosaic_columns * (self.thumb + _GAP) - _GAP + _MARGIN)


def contact_sheet(
    classes: Iterable[SheetClass],
    *,
    total: int,
    title: str = "Distilled data set",
    columns: int = 6,
    mosaic_columns: int = 2,
    rows: int = 2,
    thumb: int = 200,
) -> Pixels:
    """Draw a contact sheet, uint8 RGB [height, width, 3], at most `MAX_HEIGHT` pixels high.

    Each class shows its first `rows * columns` sources and first `rows * mosaic_columns` mosaics. Classes are
    taken one by one, and no more once the sheet is full, so a generator may load them as they are asked for.

    Args:
        classes: in the order in which they are shown.
        total: how many classes there are; the last line says how many of them are not shown.
        title: the first line.
        columns: source images side by side.
        mosaic_columns: mosaics side by side.
        rows: the most rows of a class.
        thumb: side in pixels of the square that holds a thumbnail, at least 64.
    """
    layout = _Layout(columns, mosaic_columns, rows, thumb)
    bands, height = [_header(title, layout)], _HEADER + _FOOTER
    for sheet_class in classes:
        band = _class_band(sheet_class, layout)
        if height + len(band) > MAX_HEIGHT:
            break
        bands.append(band)
        height += len(band)
    shown = len(bands) - 1
    bands.append(_footer(total - shown, layout))
    return np.vstack(bands)


def _header(title: str, layout: _Layout) -> Pixels:
    """The title and the legend of colours."""
    band = _blank(_HEADER, layout.width)
    _write(band, title, (_MARGIN, 54), INK, size=0.95, weight=2, room=layout.width - 2 * _MARGIN)
    top, baseline = 78, 92
    sample = np.full((16, 24, 3), 150, np.uint8)
    inside = np.zeros((16, 24), np.uint8)
    inside[3:13, 3:21] = 255
    _outline_mask(sample, inside)
    samples = [(sample, "foreground")]
    for kind, meaning in _KIND_MEANINGS.items():
        sample = np.full((16, 24, 3), 150, np.uint8)
        _frame(sample, (1, 1, 23, 15), KIND_COLOURS[kind])
        samples.append((sample, meaning))
    x = _MARGIN
    for sample, meaning in samples:
        band[top : top + 16, x : x + 24] = sample
        x = _write(band, meaning, (x + 32, baseline), FAINT) + 30
    return band


def _footer(left_out: int, layout: _Layout) -> Pixels:
    band = _blank(_FOOTER, layout.width)
    if left_out > 0:
        noun = "class is" if left_out == 1 else "classes are"
        _write(band, f"{left_out} more {noun} not shown.", (_MARGIN, 24), FAINT)
    return band


def _class_band(sheet_class: SheetClass, layout: _Layout) -> Pixels:
    """A class: its name and figures, then its sources and mosaics in aligned columns."""
    sources = sheet_class.sources[: layout.rows * layout.columns]
    mosaics = sheet_class.mosaics[: layout.rows * layout.mosaic_columns]
    rows = max(-(-len(sources) // layout.columns), -(-len(mosaics) // layout.mosaic_columns), 1)
    band = _blank(_CLASS_TITLE + rows * (layout.thumb + _CAPTION), layout.width)
    cv2.line(band, (_MARGIN, 0), (layout.width - _MARGIN - 1, 0), RULE, 1)
    _write_class_title(band, sheet_class, layout)
    for index, source in enumerate(sources):
        row, column = divmod(index, layout.columns)
        _place_source(band, source, *layout.corner(row, column, left=_MARGIN), layout.thumb)
    for index, mosaic in enumerate(mosaics):
        row, column = divmod(index, layout.mosaic_columns)
        _place(
            band,
            _thumbnail(mosaic, layout.thumb),
            *layout.corner(row, column, left=layout.mosaics_left),
            layout.thumb,
        )
    return band


def _write_class_title(band: Pixels, sheet_class: SheetClass, layout: _Layout) -> None:
    baseline = _CLASS_TITLE - 18
    share = (
        f"whole from occupancy {sheet_class.threshold:.2f}: "
        f"{sheet_class.whole_tiles} of {sheet_class.tiles} tiles"
    )
    room = layout.mosaics_left - _MARGIN - _GAP
    x = _write(band, sheet_class.name, (_MARGIN, baseline), INK, size=0.72, weight=2, room=room // 2)
    _write(band, share, (x + 18, baseline), FAINT, room=layout.mosaics_left - _GAP - x - 18)
    mosaics = "mosaics" if sheet_class.mosaics else "no mosaics"
    _write(band, mosaics, (layout.mosaics_left, baseline), FAINT)


def _place_source(band: Pixels, source: SheetSource, x: int, y: int, thumb: int) -> None:
    """A source's thumbnail with its foreground, its chosen box and its figures."""
    small = _thumbnail(source.pixels, thumb)
    box = _scaled_box(source.box, source.pixels.shape[:2], small.shape[:2])
    if source.kind == "crop":
        _fade_outside(small, box)
    if source.mask is not None:
        _outline_mask(small, source.mask)
    for found in source.found:
        _outline_box(small, found)
    _frame(small, box, KIND_COLOURS[source.kind])
    _place(band, small, x, y, thumb)
    baseline = y + thumb + 17
    _write(band, f"occupancy {source.occupancy:.2f}", (x, baseline), INK, size=0.42, room=thumb)
    figures = f"{_KIND_WORDS[source.kind]}, loss {source.loss:.2f}"
    _write(band, figures, (x, baseline + 17), KIND_COLOURS[source.kind], size=0.42, room=thumb)


def _thumbnail(pixels: Pixels, side: int) -> Pixels:
    """A copy whose longer side is `side`, its aspect kept as far as whole pixels allow."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=kernel), np.uint8)


def _place(band: Pixels, small: Pixels, x: int, y: int, side: int) -> None:
    """Put a thumbnail in the middle of its square."""
    band[y : y + side, x : x + side] = CARD
    height, width = small.shape[:2]
    top, left = y + (side - height) // 2, x + (side - width) // 2
    band[top : top + height, left : left + width] = small


def _scaled_box(box: Box, full: tuple[int, ...], small: tuple[int, ...]) -> Corners:
    """The box on a thumbnail: left, top, and, one pixel outside, right and bottom; never empty."""
    scale_y, scale_x = small[0] / full[0], small[1] / full[1]
    left = min(round(box.x * scale_x), small[1] - 1)
    top = min(round(box.y * scale_y), small[0] - 1)
    right = min(max(round((box.x + box.width) * scale_x), left + 1), small[1])
    bottom = min(max(round((box.y + box.height) * scale_y), top + 1), small[0])
    return left, top, right, bottom


def _fade_outside(small: Pixels, box: Corners) -> None:
    left, top, right, bottom = box
    inside = small[top:bottom, left:right].copy()
    small[...] = (small.astype(np.uint16) * 5 + 3 * 255) // 8
    small[top:bottom, left:right] = inside


def _outline_mask(small: Pixels, mask: Pixels) -> None:
    """Draw the mask's border: light within dark, so that it shows on any image."""
    height, width = small.shape[:2]
    fine = cv2.resize(mask, (width * _FINE, height * _FINE), interpolation=cv2.INTER_LINEAR)
    inside = np.where(fine > 127, 255, 0).astype(np.uint8)
    for tone, thickness in ((INK, 3.5), (FOREGROUND, 2.0)):
        side = round(thickness * _FINE) | 1
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        border = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, brush)
        covered = cv2.resize(border, (width, height), interpolation=cv2.INTER_AREA)[..., None] / 255
        small[...] = np.rint(small * (1 - covered) + np.array(tone) * covered)


def _outline_box(small: Pixels, found: ScoredBox) -> None:
    """Draw a thin box around an object that was found, in the colours of the mask's border."""
    height, width = small.shape[:2]
    top_left = (round(found.left * width), round(found.top * height))
    bottom_right = (round(found.right * width) - 1, round(found.bottom * height) - 1)
    for tone, thickness in ((INK, 3), (FOREGROUND, 1)):
        cv2.rectangle(small, top_left, bottom_right, tone, thickness)


def _frame(small: Pixels, box: Corners, tone: Colour) -> None:
    """Draw a box along the inside of its border, with a white line within it."""
    left, top, right, bottom = box
    for inset, line in ((0, tone), (1, tone), (2, tone), (3, PAPER)):
        if right - left > 2 * inset and bottom - top > 2 * inset:
            cv2.rectangle(
                small, (left + inset, top + inset), (right - 1 - inset, bottom - 1 - inset), line, 1
            )


def _blank(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), PAPER, np.uint8)


def _write(
    band: Pixels,
    text: str,
    place: tuple[int, int],
    tone: Colour,
    *,
    size: float = 0.5,
    weight: int = 1,
    room: int | None = None,
) -> int:
    """Write a line of text from `place` (left, baseline), shortened to `room` pixels; where it ends."""
    line = _ascii(text)
    if room is not None:
        line = _shortened(line, room, size, weight)
    cv2.putText(band, line, place, _FONT, size, tone, weight, cv2.LINE_AA)
    return place[0] + _text_width(line, size, weight)


def _text_width(line: str, size: float, weight: int) -> int:
    return int(cv2.getTextSize(line, _FONT, size, weight)[0][0])


def _shortened(line: str, room: int, size: float, weight: int) -> str:
    """`line`, or as much of its beginning as fits `room` pixels with an ellipsis."""
    if len(line) <= room and _text_width(line, size, weight) <= room:
        return line
    kept = line[: min(room, len(line) - 1)]  # no character is narrower than a pixel
    while kept and _text_width(kept + "...", size, weight) > room:
        kept = kept[:-1]
    return kept.rstrip() + "..."


def _ascii(text: str) -> str:
    """What OpenCV's fonts can show of a text: accents dropped, other characters as question marks."""
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", text) if not unicodedata.combining(mark))
    return "".join(mark if " " <= mark <= "~" else "?" for mark in plain)
