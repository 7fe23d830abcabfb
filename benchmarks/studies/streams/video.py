"""Does `kill -9` ever leave a stream's OUT that cannot be read, and does it change what is taken?

    python -m benchmarks.studies.streams.video DATA --teacher teacher.onnx --json streams-video.json

A video is made of photographs: each drifts for some frames, blurred as it moves, and fades into the next; of
five scenes one was shown before. It is streamed with the teacher's labels, once to its end, and once killed
again and again at random moments all along it; after each, OUT is verified if there is one. Kept result:
`streams-video.json`.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

import fgdd_fast
from benchmarks.studies.study import Study, data_argument, number_option, read_images, study
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image

Frame = NDArray[np.uint8]
SIDE = 224  # pixels of a frame
SHOWN, FADING = 6, 2  # frames of a scene, and those of them in which it fades into the next
DRIFT = 3  # pixels a frame
COLUMNS = {"kill": "d", "seconds": ".1f", "classes": "d", "mosaics": "d", "sound": ""}


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE", help="Knows the classes of DATA.")
@number_option("--scenes", 200, "Of the video.")
@number_option("--kills", 20, "Of the stream.")
def main(study: Study, data: Path, teacher: str, scenes: int, kills: int) -> None:
    """Stream a made video of the images of DATA, and kill that again and again."""
    draw, rows, ends = random.Random(0), list[dict[str, Any]](), list[bool]()
    with tempfile.TemporaryDirectory() as folder:
        film, out, whole = (Path(folder) / name for name in ("film.avi", "killed", "whole"))
        count = write_video(film, read_images(data)[1], scenes)
        lasted, starting = (
            seconds_of(command(film, whole, teacher)) for _ in range(2)
        )  # then nothing is left
        while len(rows) < kills:
            stream = subprocess.Popen(command(film, out, teacher))
            seconds = starting + draw.uniform(0, 2) * (lasted - starting) / kills
            try:
                stream.wait(seconds)
            except subprocess.TimeoutExpired:
                stream.kill()
                stream.wait()
                rows.append({"kill": len(rows) + 1, "seconds": seconds, **state(out)})
            else:  # it came to its end, and begins anew
                ends.append(tiles(out) == tiles(whole))
                shutil.rmtree(out)
                out.with_name(f"{out.name}.candidates").unlink()
        seconds_of(command(film, out, teacher))
        ends.append(tiles(out) == tiles(whole))
        manifest = fgdd_fast.open_distilled(whole).manifest
        facts: dict[str, Any] = {
            "frames": count,
            "seconds": lasted,
            "mosaics": len(manifest.images),
            "same_tiles": ends,
        }
        study.report(rows, COLUMNS, **facts, settings=dict(manifest.settings))
    if not all((*ends, *(row["sound"] for row in rows))):
        raise DataError(
            "Killing changed what is taken, or left what cannot be read", "The result says which."
        )


def command(film: Path, out: Path, teacher: str) -> list[str]:
    """The command that streams the video, and goes on where it was killed."""
    asked = ["--teacher", teacher, "--ipc", "2", "--confident", "0.5", "--checkpoint", "1", "--device", "cpu"]
    return [sys.executable, "-m", "fgdd_fast", "stream", str(film), str(out), *asked, "--quiet"]


def seconds_of(words: Sequence[str]) -> float:
    """How long a command takes."""
    begin = time.monotonic()
    subprocess.run(words, check=True)
    return time.monotonic() - begin


def state(out: Path) -> dict[str, Any]:
    """What a killed stream left: no OUT yet, or one that is sound."""
    if not out.exists():
        return {"classes": 0, "mosaics": 0, "sound": True}
    manifest = fgdd_fast.open_distilled(out).manifest
    counts = {"classes": len(manifest.classes), "mosaics": len(manifest.images)}
    return {**counts, "sound": bool(fgdd_fast.verify(out).sound)}


def tiles(out: Path) -> list[Any]:
    """The tiles of a distilled data set."""
    images = fgdd_fast.open_distilled(out).manifest.images
    return [(image.file, tile.sha256, tile.box) for image in images for tile in image.tiles]


def write_video(path: Path, images: Sequence[SourceImage], scenes: int) -> int:
    """Write a video of so many scenes; return its frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (SIDE, SIDE))
    try:
        frames = 0
        for frame in made_frames(images, scenes):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            frames += 1
        return frames
    finally:
        writer.release()


def made_frames(images: Sequence[SourceImage], scenes: int) -> Iterator[Frame]:
    """The frames of photographs that drift and fade into one another."""
    draw, chosen = random.Random(0), list[SourceImage]()
    before: Sequence[Frame] = ()
    for _ in range(scenes):
        again = chosen and draw.random() < 0.2
        chosen.append(draw.choice(chosen if again else images))
        shown = list(drifting(read_image(chosen[-1].path).pixels))
        fading = zip(before, shown, strict=False)
        yield from (cv2.addWeighted(old, 0.5, new, 0.5, 0).astype(np.uint8) for old, new in fading)
        yield from shown[len(before) : SHOWN - FADING]
        before = shown[SHOWN - FADING :]


def drifting(pixels: Frame) -> Iterator[Frame]:
    """A photograph that moves to the right under a frame, blurred along its way."""
    size = SIDE + SHOWN * DRIFT
    large = cv2.blur(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), (DRIFT, 1))
    for number in range(SHOWN):
        yield np.ascontiguousarray(large[:SIDE, number * DRIFT :][:, :SIDE], np.uint8)


if __name__ == "__main__":
    main()
