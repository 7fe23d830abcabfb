"""A teacher's cropped-input graph: a bundle beside it that takes tiles, where the score view is `pad`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fgdd_engines.bundle.bundle import Bundle, Preprocessing, write_bundle
from fgdd_export.graphs.graph import load_model, read_model, serialise, tensor_specs
from fgdd_export.graphs.parity import check_teacher_parity, drawn_images, teacher_differences
from fgdd_export.tile.graph import CroppedGraph, build_cropped_graph
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.tiles import teacher_view


def make_cropped_graph(teacher: Bundle, tile: int) -> Bundle | None:
    """Make the graph of a teacher that takes tiles, and compare it with the teacher's own padded views.

    Args:
        teacher: in fp32, with square inputs.
        tile: side of a tile in pixels.

    Returns:
        The bundle, written beside the teacher; None where it would save nothing: the tile fills the view, or
        the network has no first layers that can be computed on a part of the view (a ViT has none).

    Raises:
        SettingsError: the bundle is no such teacher, or has no value to pad with.
        BundleError: the teacher cannot be read, or the graph differs from it; nothing is written.
    """
    side, pad = teacher.preprocessing.width, teacher.preprocessing.pad_value
    if teacher.role != "teacher" or teacher.variant is not None or teacher.tile_of is not None:
        raise SettingsError(f"The bundle {teacher.onnx} is no teacher in fp32", "Name the teacher itself.")
    if pad is None:
        raise SettingsError(
            f"The teacher {teacher.name} has no pixel value that stands for zero padding",
            "Without a cropped-input graph, use --score-view resize or native.",
        )
    if tile >= side:
        return None
    data = teacher.graph()
    made = build_cropped_graph(read_model(data, f"The teacher {teacher.onnx}"), side, tile, pad)
    if made is None:
        return None
    parity = _measure_parity(data, serialise(made.model), side, tile, pad)
    check_teacher_parity(f"{teacher.name} for tiles of {tile} pixels", parity)
    return write_bundle(_describe(teacher, made, tile, parity), serialise(made.model))


def _describe(teacher: Bundle, made: CroppedGraph, tile: int, parity: dict[str, float]) -> Bundle:
    preprocessing = teacher.preprocessing
    source: dict[str, Any] = {**teacher.source, "windowed": list(made.windowed)}
    return replace(
        teacher,
        onnx=teacher.beside(f"tile{tile}.onnx"),
        inputs=tensor_specs(made.model.graph.input),
        outputs=tensor_specs(made.model.graph.output),
        preprocessing=Preprocessing(
            tile,
            tile,
            f"padded to {preprocessing.width} x {preprocessing.height}; {preprocessing.description}",
            preprocessing.pad_value,
        ),
        source=source,
        parity=parity,
        parts={},
        files={},
        tile_of=teacher.sha256,
    )


def _measure_parity(
    teacher: bytes, cropped: bytes, side: int, tile: int, pad: tuple[int, int, int]
) -> dict[str, float]:
    """Differences of logits and losses (nats) on drawn tiles, in a batch."""
    tiles = drawn_images(tile, tile)
    labels = np.zeros(len(tiles), np.int32)
    views = np.stack([teacher_view(each, "pad", side, pad) for each in tiles])
    expected = load_model(teacher)({"images": views, "labels": labels})
    found = load_model(cropped)({"images": tiles, "labels": labels})
    return teacher_differences(found, expected["logits"], expected["loss"])
