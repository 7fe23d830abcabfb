"""How near is what a foreground model finds to true masks, where one thing stands out and where several do?

    python -m benchmarks.studies.stamps PHOTOGRAPHS --work DIR --json stamps.json

Makes three sets of pictures with exact masks, always the same: the demo's drawn pictures, each of one thing;
drawn scenes of 1 to 4 shapes; and 1 to 4 stamps pasted on PHOTOGRAPHS, whose own things are background then.
`fgdd_fast.compare_foregrounds` holds each model to them. The stamps are Tux Paint's (Debian's package
`tuxpaint-stamps-default`). Kept result: `stamps.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import Study, data_argument, number_option, read_images, runtime_options, study
from fgdd_bench.harness.subject import unusable
from fgdd_fast.comparison import compare_foregrounds
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.models.factory import choose_foreground
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.synthetic import CLASSES, write_drawn_dataset
from fgdd_fast.synthetic.pictures import write_mask, write_picture
from fgdd_fast.synthetic.scenes import draw_scene
from fgdd_fast.synthetic.tools import Dice

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # pixels, mask

MODELS = ("saliency-u2netp", "saliency-u2netp-256", "saliency-u2netp-192")
KINDS = ("animals", "clothes", "food", "hobbies", "household", "plants", "sports", "vehicles")  # of stamps
THINGS = (1, 2, 3, 4)  # in a picture, which belongs to a class by their number
SMALLEST, LARGEST = 0.03, 0.5  # share of the picture that its stamps would cover side by side
COLUMNS = dict.fromkeys(("set", "class", "model"), "") | {"images": "d", "mean_error": ".3f", "bias": "+.3f"}
COLUMNS |= {"iou": ".2f", "rank_correlation": ".2f", "path_agreement": ".0%"}


@study
@data_argument
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for pictures and masks.")
@click.option(
    "--stamps",
    type=click.Path(path_type=Path),
    default=Path("/usr/share/tuxpaint/stamps"),
    help="Folder of PNG files with alpha, in folders by kind; Debian's by default.",
)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, metavar="NAME|BUNDLE")
@number_option("--images", 200, "Pictures of each set, at most.")
@runtime_options
def main(
    study: Study, data: Path, work: Path, stamps: Path, models: Sequence[str], images: int, **options: Any
) -> None:
    """Hold foregrounds to true masks: of drawn pictures, and of stamps on the photographs of DATA."""
    _, photographs = read_images(data)
    found = read_stamps(stamps)
    for model in models:
        choose_foreground(model, ())
    drawn, each, of_a_kind = work / "pictures", max(images // len(THINGS), 1), max(images // len(CLASSES), 1)
    write_drawn_dataset(drawn / "data", images_per_class=of_a_kind, seed=0, masks=drawn / "masks")
    _write(work / "scenes", each, scene)
    _write(work / "stamps", each, lambda index, things: paste(index, things, found, photographs))
    rows: list[dict[str, Any]] = []
    runs = [(work / name, model) for model in models for name in ("pictures", "scenes", "stamps")]
    for folder, model in study.track(runs, "Comparing"):
        given: dict[str, Any] = {"foreground": model, "pool": None, "store": work / "store"}
        compared = compare_foregrounds(
            folder / "data", f"masks:{folder / 'masks'}", runtime=RuntimeOptions(**options), **given
        )
        for name, agreement in (*compared.classes.items(), ("all", compared.overall)):
            facts = {"set": folder.name, "class": name, "model": compared.foreground}
            rows.append({**facts, **asdict(agreement), "runtime": compared.runtimes[0]})
        study.report(rows, COLUMNS, show=False, rule=str(compared.rule), stamps=len(found))
    study.show(rows, COLUMNS)


def read_stamps(folder: Path) -> list[Path]:
    """Return the files of stamps that show things, each once and not mirrored, in the order of their names.

    Raises:
        DataError: there are none.
    """
    files = [file for kind in KINDS for file in sorted((folder / kind).rglob("*.png"))]
    found = [file for file in files if not file.stem.endswith(("_mirror", "_flip"))]
    if not found:
        raise DataError(f"There are no stamps in {folder}", "Install Debian's tuxpaint-stamps-default.")
    return found


def _write(folder: Path, each: int, make: Callable[[int, int], Picture]) -> None:
    for things in THINGS:
        data, masks = (folder / part / str(things) for part in ("data", "masks"))
        data.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for index in range(each):
            pixels, mask = make(index, things)
            write_picture(data / f"{index:04d}.jpg", pixels)
            write_mask(masks / f"{index:04d}.png", mask)


def scene(index: int, things: int) -> Picture:
    """Draw a scene of so many shapes."""
    drawn = draw_scene(1000 * things + index, (360, 480), things)
    return drawn.pixels, np.any([item.mask for item in drawn.objects], axis=0)


def paste(index: int, things: int, stamps: Sequence[Path], photographs: Sequence[SourceImage]) -> Picture:
    """Paste stamps wholly within a photograph, the later ones on top; the same for the same arguments."""
    dice = Dice(index, "stamps", str(things))
    photograph = dice.choose(photographs)
    try:
        pixels = read_image(photograph.path).pixels.copy()
    except ImageError as error:
        raise unusable(photograph.source, error.problem) from error
    size = pixels.shape[:2]
    mask = np.zeros(size, bool)
    share = SMALLEST * (LARGEST / SMALLEST) ** dice.number() / things
    for file in [dice.choose(stamps) for _ in range(things)]:
        stamp = _read_stamp(file, share, size)
        height, width = stamp.shape[:2]
        top, left = dice.whole(0, size[0] - height), dice.whole(0, size[1] - width)
        window = (slice(top, top + height), slice(left, left + width))
        alpha = stamp[..., 3:] / np.float32(255)
        pixels[window] = np.rint(pixels[window] * (1 - alpha) + stamp[..., 2::-1] * alpha).astype(np.uint8)
        mask[window] |= alpha[..., 0] >= 0.5
    return pixels, mask


def _read_stamp(file: Path, share: float, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """What is seen of a stamp, to cover a share of a picture (height, width) or what there is room for."""
    stamp = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if stamp is None or stamp.shape[2:] != (4,) or not (opaque := stamp[..., 3] >= 128).any():
        raise unusable(file.name, "no stamp with alpha")
    left, top, width, height = cv2.boundingRect(opaque.astype(np.uint8))
    seen = stamp[top : top + height, left : left + width]
    area = share * size[0] * size[1] / opaque.sum()
    scale = min(area**0.5, size[0] / height, size[1] / width)
    target = (max(1, int(width * scale)), max(1, int(height * scale)))
    return np.asarray(cv2.resize(seen, target, interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()
