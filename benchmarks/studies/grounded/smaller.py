"""What do smaller inputs of Grounded SAM 2 cost in decisions?

    python -m benchmarks.studies.grounded.smaller DETECTOR SEGMENTER --json smaller.json

Asks checkpoints that know drawn scenes, such as those in `tests/miniatures`, for the first object of each
scene, with each side of the segmenter's image and of the detector's canvas, the first being the reference.
To the miniatures 128, 96 and 64 are what 1024, 768 and 512 are to SAM 2.1, and 96, 128 and 77 what 800, 1066
and 640 are to Grounding DINO. The networks are transformers', to which exported graphs are held within 0.002
of the occupancy. Kept result: `smaller.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import Study, number_option, study
from fgdd_export.grounded_sam2.pytorch_reference import DetectorReference, SegmenterReference, union
from fgdd_export.grounding_dino.bundle import DetectorSettings
from fgdd_export.grounding_dino.network import load_grounding_dino
from fgdd_export.sam2.network import load_sam2
from fgdd_fast.images.resize import resize
from fgdd_fast.models.grounded_sam2 import bring_to_canvas
from fgdd_fast.models.prompts import Prompting, prompt_text
from fgdd_fast.runtime.tolerances import same_path
from fgdd_fast.synthetic.scenes import Scene, draw_scene

SHAPES = ((240, 320), (320, 240), (256, 256), (200, 320))
FIRST_SEED = 9_100_000  # the miniatures were trained on lower ones
BOXES = 6
# Occupancies beside the reference's, and beside the true ones, of all objects and of the smallest quarter; in
# how many scenes nothing is found.
COLUMNS = {"segmenter": "d", "canvas": "d", "mean_change": ".4f", "max_change": ".3f", "same_path": ".1%"}
COLUMNS |= {"true_error": ".4f", "true_error_small": ".4f", "nothing_found": "d"}


@study
@click.argument("detector")
@click.argument("segmenter")
@click.option("--size", "sizes", multiple=True, type=int, default=(128, 96, 64), show_default=True)
@click.option("--canvas", "canvases", multiple=True, type=int, default=(96, 128, 77), show_default=True)
@number_option("--scenes", 200)
def main(
    study: Study,
    detector: str,
    segmenter: str,
    sizes: Sequence[int],
    canvases: Sequence[int],
    scenes: int,
) -> None:
    """Compare sizes of the checkpoints DETECTOR and SEGMENTER on drawn scenes."""
    dino, sam = DetectorReference(load_grounding_dino(detector)), load_sam2(segmenter)
    prompting = DetectorSettings().prompting(dino.detector, BOXES)
    drawn = [draw_scene(FIRST_SEED + index, SHAPES[index % len(SHAPES)]) for index in range(scenes)]
    truth = np.array([scene.occupancy(scene.objects[0].name) for scene in drawn])
    small = truth <= np.quantile(truth, 0.25)
    ways = [(size, canvases[0]) for size in sizes] + [(sizes[0], canvas) for canvas in canvases[1:]]
    rows: list[dict[str, Any]] = []
    reference: NDArray[np.float32] | None = None
    for size, canvas in study.track(ways, "Sizes"):
        parts = dino, SegmenterReference(sam.at_size(size))
        found = np.array(
            [_occupancy(scene, *parts, (canvas, canvas), prompting) for scene in drawn], np.float32
        )
        reference = found if reference is None else reference
        change, error = np.abs(found - reference), np.abs(found - truth)
        row = {
            "segmenter": size,
            "canvas": canvas,
            "mean_change": float(change.mean()),
            "max_change": float(change.max()),
            "same_path": float(same_path(reference, found).mean()),
            "true_error": float(error.mean()),
            "true_error_small": float(error[small].mean()),
            "nothing_found": int((found == 0).sum()),
        }
        rows.append(row)
    small_up_to = float(truth[small].max())
    study.report(
        rows, COLUMNS, scenes=scenes, small_up_to=small_up_to, threshold=prompting.threshold, boxes=BOXES
    )


def _occupancy(
    scene: Scene,
    detector: DetectorReference,
    segmenter: SegmenterReference,
    canvas: tuple[int, int],
    prompting: Prompting,
) -> float:
    """The share that the scene's first object seems to take."""
    framed, valid = bring_to_canvas(scene.pixels, canvas, prompting, "area")
    prompt = prompt_text((scene.objects[0].name,), prompting.form)
    boxes = detector.detect_on_canvas(framed, valid, prompt).above(prompting.threshold, BOXES)
    side = segmenter.segmenter.image_size
    square = resize(scene.pixels, (side, side), "area")
    return float(union(segmenter.mask_logits(square, boxes.corners), (side, side)).mean())


if __name__ == "__main__":
    main()
