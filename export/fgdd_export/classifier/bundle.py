"""Any image classifier -> a teacher bundle that runs without the framework it came from.

A classifier is a PyTorch network, or a backbone bundle with logits of its own, which needs no PyTorch.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.classifier.candidate import Candidate, Images, backbone_candidate, names_bundle
from fgdd_export.classifier.teacher import add_loss
from fgdd_export.graphs.graph import Array, bundle_of, load_model, serialise
from fgdd_export.graphs.parity import (
    UNKNOWN_LICENCE,
    check_teacher_parity,
    cross_entropy,
    drawn_images,
    teacher_differences,
    teacher_tolerance,
)
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.resize import resize

HOW = "Give a file with one name a line, in the order of the outputs: --classes FILE"


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names in the order of a classifier's outputs.

    Args:
        path: a UTF-8 text file with one name a line, or with a JSON list of names.

    Raises:
        SettingsError: the file cannot be read, is empty, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"The class names {path} cannot be read: {error.strerror}", HOW) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"The class names {path} are no UTF-8 text", HOW) from error
    listed = path.suffix == ".json" or text.lstrip().startswith("[")
    lines = _json_names(path, text) if listed else text.rstrip().split("\n")
    names = tuple(line.strip() for line in lines)
    if not any(names):
        raise SettingsError(f"The file {path} holds no class names", HOW)
    if "" in names:
        raise SettingsError(f"Name {names.index('') + 1} in {path} is empty", "Each output needs a name.")
    return names


def _json_names(path: Path, text: str) -> list[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"The class names {path} are no JSON: {error}", HOW) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"The class names {path} are no JSON list of names", HOW)
    return names


def check_class_names(names: Sequence[str] | None, outputs: int, checkpoint: str) -> tuple[str, ...]:
    """Make sure that every output has one name of its own, given by the user or the checkpoint.

    Raises SettingsError where there are no names, another number of them, or two that are equal.
    """
    if names is None:
        raise SettingsError(f"The checkpoint {checkpoint} does not name its {outputs} classes", HOW)
    if len(names) != outputs:
        raise SettingsError(
            f"There are {len(names)} class names, but the network {checkpoint} tells {outputs} classes apart",
            HOW,
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SettingsError(
            f"Two classes of {checkpoint} have the same name {twice[0]!r}", f"Names must differ. {HOW}"
        )
    return tuple(names)


_log = logging.getLogger(__name__)

BATCH = 8  # images at once while parity is measured; each is also run on its own


def export_teacher(
    checkpoint: str,
    onnx: Path,
    *,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    check: Sequence[Images] = (),
    licence: str = UNKNOWN_LICENCE,
    force: bool = False,
    trust_code: bool = False,
) -> Bundle:
    """Export a classifier together with its cross-entropy, and prove that it still decides the same.

    Args:
        checkpoint: a folder or hub name of transformers; `timm:NAME`, `torchvision:NAME` or `MODULE:FUNCTION`
            (which is executed and returns a `torch.nn.Module`), each with `@FILE` for other weights; a
            TorchScript file; a file of RDED's; or a backbone bundle.
        onnx: where the ONNX file goes; the sidecar goes beside it, and its stem is the bundle's name.
        classes: names in the order of the outputs; the checkpoint's own when None.
        size: pixels of each side of the input; the checkpoint's own when None.
        mean, std: of each channel, for values in [0, 1]; the checkpoint's own when None.
        check: uint8 RGB images [height, width, 3] of any size, on which the bundle is held against the
            network; drawn ones when there are none.
        licence: SPDX identifier of the weights' licence; `NOASSERTION` leaves it to the checkpoint.
        force: write the bundle also when it differs from the network by more than rounding; not when it gives
            values that are not finite.
        trust_code: load a TorchScript file, which is a program and not weights alone.

    Returns:
        A `teacher`; see `Bundle`. Its images are square.

    Raises:
        SettingsError: names, size, mean or std are missing or do not fit; or TorchScript is not trusted.
        BundleError: the checkpoint cannot be loaded or exported, gives values that are not finite, or the
            bundle differs from it; nothing is written then.
        MissingExtraError: a package of the extra `export` is not installed.
    """
    _log.info("Loading %s", checkpoint)
    candidate = _candidate(checkpoint, size=size, mean=mean, std=std, trust_code=trust_code)
    return write_teacher(
        candidate, onnx, checkpoint, classes=classes, check=check, licence=licence, force=force
    )


def write_teacher(
    candidate: Candidate,
    onnx: Path,
    checkpoint: str,
    *,
    classes: Sequence[str] | None,
    check: Sequence[Images],
    licence: str,
    force: bool,
) -> Bundle:
    """Write a classifier that was loaded as a teacher; see `export_teacher`."""
    names = check_class_names(classes or candidate.classes, candidate.outputs, checkpoint)
    images = _inputs(check, candidate)
    _log.info("Running the network as published on %d images", len(images))
    logits = _reference(candidate, images, checkpoint)
    network, making = candidate.export()
    model = add_loss(network, candidate.outputs)
    parity = measure_parity(load_model(serialise(model)), images, logits)
    _refuse(onnx.stem, parity, force)
    bundle = bundle_of(
        model,
        onnx,
        "teacher",
        preprocessing=candidate.preprocessing,
        classes=names,
        source={**candidate.source, **making},
        licence=candidate.licence if licence == UNKNOWN_LICENCE else licence,
        parity=parity,
    )
    return write_bundle(bundle, serialise(model))


def _refuse(name: str, parity: Mapping[str, Any], force: bool) -> None:
    finite = math.isfinite(parity["max_logit_difference"] + parity["max_loss_difference"])
    if not (force and finite):
        check_teacher_parity(name, parity)


def _candidate(
    checkpoint: str,
    *,
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    trust_code: bool,
) -> Candidate:
    if names_bundle(checkpoint):
        return backbone_candidate(checkpoint, size=size, mean=mean, std=std)
    for package in ("torch", "transformers"):
        import_optional(package, "export")
    from fgdd_export.classifier.network import network_candidate  # noqa: PLC0415 - imports torch

    return network_candidate(checkpoint, size=size, mean=mean, std=std, trust_code=trust_code)


def _inputs(check: Sequence[Images], candidate: Candidate) -> Images:
    """The images for parity, uint8 [n, height, width, 3]."""
    height, width = candidate.preprocessing.height, candidate.preprocessing.width
    if not len(check):
        return drawn_images(height, width)
    return np.stack([resize(image, (width, height), "area") for image in check])


def _reference(candidate: Candidate, images: Images, checkpoint: str) -> NDArray[np.float64]:
    logits = np.concatenate([candidate.reference(images[part]) for part in _parts(len(images), BATCH)])
    if not np.isfinite(logits).all():
        raise BundleError(
            f"The network {checkpoint} gives logits that are not finite", "Its weights are damaged."
        )
    return np.asarray(logits, np.float64)


def measure_parity(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], images: Images, logits: NDArray[np.float64]
) -> dict[str, Any]:
    """Hold a teacher against the network that it was made from, in batches and one by one.

    Args:
        run: the teacher, from inputs to outputs, both by name.
        images: uint8 [n, height, width, 3].
        logits: what the network gives for them, [n, classes].

    Returns:
        The largest differences of logits and of losses (nats), the share of images with the same best class,
        and the tolerance that these differences should keep.
    """
    count, outputs = logits.shape
    labels = (np.arange(count) * 7 % outputs).astype(np.int32)
    losses = cross_entropy(logits, labels)
    figures: list[dict[str, float]] = []
    for batch in (BATCH, 1):
        each = [run({"images": images[part], "labels": labels[part]}) for part in _parts(count, batch)]
        found = {name: np.concatenate([one[name] for one in each]) for name in ("logits", "loss")}
        agreement = (found["logits"].argmax(axis=1) == logits.argmax(axis=1)).mean()
        figures.append({**teacher_differences(found, logits, losses), "top1_agreement": float(agreement)})
    worst = {name: float(np.max([one[name] for one in figures])) for name in figures[0]}
    worst["top1_agreement"] = min(one["top1_agreement"] for one in figures)
    tolerance = teacher_tolerance(worst["max_logit"])
    return {"images": count, "batches": [min(BATCH, count), 1], **worst, "tolerance": tolerance}


def _parts(count: int, length: int) -> Iterator[slice]:
    return (slice(start, start + length) for start in range(0, count, length))
