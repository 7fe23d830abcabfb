"""Mutated images of each format that is read, decoded and measured."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import tiny_pipeline as tiny
from campaigning import SEED, Tally, Try, number, supervise
from image_files import MODES, bmp_with_alpha, encode, exif, in_mode
from mutations import mutate_bytes
from tiny_measuring import measurer

from fgdd_fast.images.dataset import Skipped, SourceImage

VARIED = {
    "JPEG": [{"quality": 90}, {"progressive": True}, {"optimize": True, "exif": exif(6)}],
    "PNG": [{}, {"compress_level": 0}],
    "WEBP": [{"quality": 80}, {"lossless": True}, {"quality": 50, "exif": exif(3)}],
    "TIFF": [{"compression": name} for name in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")],
}


def images_of(form: str) -> list[bytes]:
    """Sound images of a format, in all of its forms that are written here."""
    made = [bmp_with_alpha(24, 16, bytes(range(256)) * 6)] if form == "BMP" else []
    for mode in MODES[form]:
        for size in ((48, 32), (7, 5), (160, 120)):
            for options in VARIED.get(form, [{}]):
                if options.get("compression") != "jpeg" or mode in ("L", "RGB", "YCbCr"):
                    made.append(encode(in_mode(mode, *size), form, **options))
    return made


@pytest.mark.parametrize("form", MODES)
def test_images(form: str, tally: Tally, tmp_path: Path) -> None:
    sound = images_of(form)
    file = tmp_path / "data" / "red" / f"image.{form.lower()}"
    file.parent.mkdir(parents=True)
    image = SourceImage(f"red/{file.name}", "red", tmp_path / "data")

    def make() -> Try:
        opened = measurer(tmp_path)
        measuring = opened.__enter__()

        def measured(place: int, _alive: object = opened) -> tuple[str, str]:
            random = Random(f"{SEED} {form} {place}")
            file.write_bytes(mutate_bytes(random.choice(sound), random, sound))
            found = measuring.measure([image])
            (record,) = measuring.records([image])
            if isinstance(record, Skipped) != bool(found.skipped):
                return "contradiction", f"{record}, {found}"
            return ("refused", "") if found.skipped else ("read", "")

        return measured

    tiny.foreground_bundle(tmp_path)
    supervise(make, number("IMAGES", 10_000), tally, tmp_path / "log")
