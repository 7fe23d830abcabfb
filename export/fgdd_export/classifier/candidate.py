"""What the export of a teacher needs of a classifier; a backbone bundle gives it without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle, Preprocessing
from fgdd_export.graphs.graph import OPSET, load_model, read_model
from fgdd_export.graphs.late_onnx import onnx
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.catalogue.catalogue import find_bundle, load_catalogue

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """A classifier that is to become a teacher.

    Attributes:
        outputs: how many classes it tells apart.
        classes: their names, where its checkpoint has them.
        preprocessing: what the graph does to its input.
        source: where it comes from.
        licence: SPDX identifier of its weights' licence, `NOASSERTION` where it is not known.
        reference: the network as published: logits float [n, classes] of images uint8 [n, height, width, 3].
        export: makes the graph, from `images` uint8 [batch, height, width, 3] to `logits` float32
            [batch, classes], and says what making it took, for the bundle's `source`.
    """

    outputs: int
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    source: Mapping[str, Any]
    licence: str
    reference: Callable[[Images], NDArray[Any]]
    export: Callable[[], tuple[onnx.ModelProto, Mapping[str, Any]]]


def names_bundle(checkpoint: str) -> bool:
    """Whether a checkpoint is a model of the catalogue, or the path of a bundle."""
    path = Path(checkpoint)
    is_file = path.suffix in (".onnx", ".json") or (not path.is_dir() and Path(f"{checkpoint}.json").exists())
    return checkpoint in load_catalogue() or is_file


def backbone_candidate(
    checkpoint: str, *, size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Candidate:
    """Take the logits of a backbone: a name of the catalogue, or the path of a bundle.

    `mean` and `std` have to be None, for a backbone normalises its input itself. Raises BundleError where the
    bundle cannot be read, or has no logits of one length; SettingsError for a size or a normalisation that it
    does not take.
    """
    bundle = find_bundle(checkpoint, "backbone")
    if mean is not None or std is not None:
        raise SettingsError(
            f"The bundle {bundle.name} normalises its input itself", "Leave out the mean and the std."
        )
    outputs = next((spec.shape[1:] for spec in bundle.outputs if spec.name == "logits"), ())
    if len(outputs) != 1 or not isinstance(outputs[0], int):
        raise BundleError(
            f"The backbone {bundle.name} has no output 'logits' [batch, classes]",
            "Fit a classifier on its features: fgdd-fast teacher fit",
        )
    data = bundle.graph()
    model = read_model(data, f"The backbone {bundle.name}")
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
    if opset != OPSET:
        raise BundleError(f"The backbone {bundle.name} is written in ONNX's opset {opset}, not {OPSET}")
    run = load_model(data)
    return Candidate(
        outputs=outputs[0],
        classes=bundle.classes,
        preprocessing=_preprocessing(bundle, size),
        source={"kind": "backbone", "name": bundle.name, "sha256": bundle.sha256, **bundle.source},
        licence=bundle.licence,
        reference=lambda images: run({"images": images})["logits"],
        export=lambda: (model, {}),
    )


def _preprocessing(bundle: Bundle, size: int | None) -> Preprocessing:
    if size is None:
        return bundle.preprocessing
    fixed = bundle.inputs[0].shape[1:3]
    if any(isinstance(length, int) and length != size for length in fixed):
        raise SettingsError(
            f"The backbone {bundle.name} takes images of {fixed[0]} x {fixed[1]} pixels, not of {size}",
            "Leave out the size.",
        )
    return replace(bundle.preprocessing, height=size, width=size)
