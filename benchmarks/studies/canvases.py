"""What a fixed canvas of the detector changes, against images at the size of its own resize rule.

Both run in PyTorch, so nothing differs but the canvas. The networks have to know what they look for: they are
the miniatures, whose rule is 96 / 160 pixels for the shortest and longest edge where the published one is
800 / 1333.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fgdd_bench.machine.environment import environment
from fgdd_export.graphs.parity import match_boxes
from fgdd_export.grounded_sam2.pytorch_reference import (
    Detections,
    DetectorReference,
    SegmenterReference,
    union,
)
from fgdd_export.grounding_dino.network import load_grounding_dino
from fgdd_export.sam2.network import load_sam2
from fgdd_fast.images.resize import resize
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.models.grounded_sam2 import letterbox
from fgdd_fast.synthetic.scenes import Scene, draw_scene

FIRST_SCENE = 6_000_000  # none of these was trained on
SIZES = ((240, 320), (320, 240), (280, 280), (180, 320), (320, 213))
THRESHOLD, BOXES = 0.4, 8
QUANTILE = 0.3
Fit = Literal["letterbox", "squash"]
# Height and width in units of the shortest edge, and how images come to them. 1 x 1 is the default canvas.
CANVASES: tuple[tuple[float, float, Fit], ...] = (
    (1, 1, "letterbox"),
    (1, 1, "squash"),
    (1, 4 / 3, "letterbox"),
    (4 / 3, 4 / 3, "letterbox"),
    (4 / 3, 4 / 3, "squash"),
    (5 / 3, 5 / 3, "letterbox"),
)


@dataclass(frozen=True)
class Row:
    """One canvas, against images at their own size.

    Attributes:
        canvas: height and width, pixels.
        fit: how images come to it.
        cost: pixels of the canvas over the mean of the images at their own size.
        occupancy_change: mean over the images.
        occupancy_error: mean difference from the truth.
        box_iou: mean over the boxes that both find.
        boxes_unmatched: share of all boxes that only one finds.
        same_path: share of the images, each side with the threshold of its own occupancies.
    """

    canvas: str
    fit: str
    cost: float
    occupancy_change: float
    occupancy_error: float
    box_iou: float
    boxes_unmatched: float
    same_path: float


@click.command()
@click.argument("miniatures", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--scenes", type=click.IntRange(min=2), default=200, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(miniatures: Path, scenes: int, output: Path | None) -> None:
    """Compare canvases with the detector's own resize rule, on drawn scenes.

    MINIATURES holds the folders grounding-dino and sam2.
    """
    torch.set_num_threads(1)
    before = environment()
    detector = DetectorReference(load_grounding_dino(str(miniatures / "grounding-dino")))
    segmenter = SegmenterReference(load_sam2(str(miniatures / "sam2")))
    drawn = [draw_scene(FIRST_SCENE + index, SIZES[index % len(SIZES)]) for index in range(scenes)]
    names = [scene.objects[0].name for scene in drawn]
    truth = np.array([scene.occupancy(name) for scene, name in zip(drawn, names, strict=True)])
    own = [
        detector.detect(scene.pixels, f"a {name}.").above(THRESHOLD, BOXES)
        for scene, name in zip(drawn, names, strict=True)
    ]
    reference = _occupancies(drawn, own, segmenter)
    rows = []
    for height, width, fit in track(CANVASES, console=Console(stderr=True)):
        edge = detector.detector.shortest_edge
        size = round(height * edge), round(width * edge)
        found = [
            _detect(detector, scene.pixels, size, fit, name) for scene, name in zip(drawn, names, strict=True)
        ]
        occupancies = _occupancies(drawn, found, segmenter)
        own_pixels = np.mean([_own_pixels(scene.pixels, edge) for scene in drawn])
        rows.append(
            Row(
                canvas=f"{size[0]} x {size[1]}",
                fit=fit,
                cost=float(size[0] * size[1] / own_pixels),
                occupancy_change=float(np.abs(occupancies - reference).mean()),
                occupancy_error=float(np.abs(occupancies - truth).mean()),
                **_box_figures(own, found),
                same_path=float((_paths(occupancies) == _paths(reference)).mean()),
            )
        )
    _show(rows)
    if output is not None:
        result = {
            "command": "python -m benchmarks.studies.canvases tests/miniatures",
            "scenes": scenes,
            "occupancy_error_at_own_size": float(np.abs(reference - truth).mean()),
            "environment": before,
            "rows": [asdict(row) for row in rows],
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _detect(
    detector: DetectorReference, pixels: Pixels, size: tuple[int, int], fit: Fit, name: str
) -> Detections:
    if fit == "letterbox":
        canvas, valid = letterbox(pixels, *size, detector.detector.shortest_edge, "pil")
    else:
        canvas, valid = resize(pixels, size[::-1], "pil"), np.array(size, np.int32)
    return detector.detect_on_canvas(canvas, valid, f"a {name}.").above(THRESHOLD, BOXES)


def _occupancies(
    scenes: Sequence[Scene], found: Sequence[Detections], segmenter: SegmenterReference
) -> NDArray[np.float64]:
    return np.array(
        [
            union(segmenter.mask_logits(scene.pixels, boxes.corners), scene.pixels.shape[:2]).mean()
            for scene, boxes in zip(scenes, found, strict=True)
        ]
    )


def _own_pixels(pixels: Pixels, edge: int) -> float:
    short, long = sorted(pixels.shape[:2])
    return float(edge * edge * long / short)


def _box_figures(own: Sequence[Detections], found: Sequence[Detections]) -> dict[str, float]:
    matches = [
        match_boxes(one.corners, one.scores, other.corners, other.scores)
        for one, other in zip(own, found, strict=True)
    ]
    boxes = sum(len(one.scores) + len(other.scores) for one, other in zip(own, found, strict=True))
    return {
        "box_iou": float(np.concatenate([match.iou for match in matches]).mean()),
        "boxes_unmatched": sum(match.unmatched for match in matches) / boxes,
    }


def _paths(occupancies: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(occupancies >= np.quantile(occupancies, QUANTILE))


def _show(rows: Sequence[Row]) -> None:
    table = Table("canvas", "fit", "cost", "occupancy change", "error", "box IoU", "unmatched", "same path")
    for row in rows:
        table.add_row(
            row.canvas,
            row.fit,
            f"{row.cost:.2f}",
            f"{row.occupancy_change:.4f}",
            f"{row.occupancy_error:.4f}",
            f"{row.box_iou:.3f}",
            f"{row.boxes_unmatched:.1%}",
            f"{row.same_path:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
