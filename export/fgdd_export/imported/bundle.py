"""A network that one has as ONNX -> a teacher or a saliency model as a bundle; no PyTorch is needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.errors import EngineError
from fgdd_export.catalogue.u2netp import TOLERANCES, compare
from fgdd_export.classifier.bundle import check_class_names, write_teacher
from fgdd_export.classifier.candidate import Candidate
from fgdd_export.graphs.graph import bundle_of, run_model, serialise
from fgdd_export.graphs.parity import UNKNOWN_LICENCE, check_parity, cross_entropy, drawn_images
from fgdd_export.imported.network import NORMALISATIONS, Layout, Normalisation, OnnxNetwork, read_network
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import BundleError, SettingsError, TeacherError
from fgdd_fast.images.resize import resize
from fgdd_fast.runtime.sample_images import check_images

_log = logging.getLogger(__name__)
Kind = Literal["teacher", "saliency"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRIED = 200  # images, of all classes in turn
_SURE = 2.0  # standard errors of the mean difference of losses
_CHANCE = 0.9  # of the loss of guessing: no normalisation helps a network that is not below


def import_bundle(
    model: str | Path,
    onnx: Path,
    *,
    kind: Kind,
    normalisation: str | Normalisation,
    layout: Layout | None = None,
    size: int | None = None,
    output: str | None = None,
    classes: Sequence[str] | None = None,
    tried: str | Path | None = None,
    licence: str = UNKNOWN_LICENCE,
    force: bool = False,
) -> Bundle:
    """Make a bundle of an ONNX file: from pixels to what bundles of its kind give.

    The graph gets the normalisation, and at its end the cross-entropy of a teacher, or the mask and occupancy
    of a saliency model. A softmax at the end of a teacher is taken off. It has to give the same, in batches
    and one by one, as the file does of images that NumPy normalised.

    Args:
        model: the file.
        onnx: where the bundle's ONNX file goes; the sidecar goes beside it.
        kind: a `teacher` gives logits or probabilities [batch, classes]; a `saliency` model one plane, in
            which the foreground is above a half, or above 0 if values leave 0 to 1.
        normalisation: a name of `NORMALISATIONS`, or one of your own.
        layout, size, output: see `read_network`.
        classes: names in the order of the outputs; by default those of the file's metadata.
        tried: labelled images (DATA), some of which a teacher is tried on: it is refused if it is surely
            worse than another normalisation makes it, or no better than guessing.
        licence: SPDX identifier of the weights' licence.
        force: write the bundle though it differs from the file, or though a trial says no.

    Raises:
        SettingsError: something is not told by the file and not given, or does not fit.
        TeacherError: the trial says that the normalisation or the classes are wrong.
        BundleError: the file cannot become a bundle.
    """
    chosen = NORMALISATIONS[normalisation] if isinstance(normalisation, str) else normalisation
    network = read_network(Path(model), layout=layout, size=size, output=output)
    source = {"kind": "onnx", "file": Path(model).name, "sha256": file_sha256(Path(model))}
    if kind == "saliency":
        if classes is not None or tried is not None:
            raise SettingsError("A saliency model has no classes to name or to try")
        return _write_saliency(network, chosen, onnx, source, licence, force=force)
    candidate = _candidate(network, chosen, source, licence)
    names = check_class_names(classes or network.names, candidate.outputs, Path(model).name)
    if tried is not None:
        _try(network, chosen, names, Path(tried), force=force)
    try:
        return write_teacher(
            candidate, onnx, Path(model).name, classes=names, check=(), licence=licence, force=force
        )
    except EngineError as error:
        raise _one_at_a_time(network) from error


def _candidate(network: OnnxNetwork, normalisation: Normalisation, source: Any, licence: str) -> Candidate:
    if len(network.output.shape) != 2:
        raise BundleError(
            f"The output of {network.file} is {list(network.output.shape)}, not [batch, classes]",
            "Name another with --output-name; a model that finds boxes is no classifier.",
        )
    if network.last in ("Sigmoid", "ArgMax"):
        raise BundleError(f"{network.file} ends in {network.last}, which is no choice of one class")
    classes = network.output.shape[1]
    assert isinstance(classes, int)

    def build() -> tuple[Any, dict[str, Any]]:
        builder = network.from_pixels(normalisation, network.output.name)
        builder.node("Identity", network.output.name, output="logits")
        logits = TensorSpec("logits", "float32", ("batch", classes))
        making = {"softmax_removed": True} if network.softmax else {}
        return builder.model(network.file.stem, [network.images], [logits]), making

    return Candidate(
        outputs=classes,
        classes=network.names,
        preprocessing=network.preprocessing(normalisation),
        source=source,
        licence=licence,
        reference=lambda images: network.reference(images, normalisation),
        export=build,
    )


def _try(
    network: OnnxNetwork, asked: Normalisation, names: Sequence[str], data: Path, *, force: bool
) -> None:
    """Refuse a teacher to which images say less than to the same network with another normalisation."""
    side = (network.side, network.side)
    shown = check_images(data, TRIED, {})
    images = np.stack([resize(each.pixels, side, "area") for each in shown])
    labels = np.array([_label(each.image.class_name, names, data) for each in shown], np.int32)
    losses, right = {}, {}
    for name, normalisation in {"": asked, **NORMALISATIONS}.items():
        logits = network.reference(images, normalisation)
        losses[name] = cross_entropy(logits, labels)
        right[name] = (logits.argmax(axis=1) == labels).mean()
    own, best = losses[""], min(losses, key=lambda name: losses[name].mean())
    tried = f"{right['']:.0%} of {len(labels)} images are right, with a mean loss of {own.mean():.2f}"
    gain = own - losses[best]
    _log.info(
        "Tried on %d images: %s",
        len(labels),
        "; ".join(
            f"{name or 'as asked'} {right[name]:.0%}, loss {losses[name].mean():.2f}" for name in losses
        ),
    )
    if force:
        return
    if losses[best].mean() >= _CHANCE * np.log(len(names)):
        raise TeacherError(
            f"The network is no better than guessing: {tried}",
            "Are the class names in the order of its outputs, and the layout right? --force writes it.",
        )
    if gain.mean() > _SURE * gain.std() / np.sqrt(len(gain)):
        raise TeacherError(
            f"The normalisation seems to be another one: {tried}; with {best} {right[best]:.0%} and "
            f"{losses[best].mean():.2f}",
            f"Write --normalisation {best}, or --force to take yours all the same.",
        )


def _label(name: str, names: Sequence[str], data: Path) -> int:
    places = ByClassName.places(names)
    if name not in places:
        raise TeacherError(
            f"The network does not know the class {name!r} of {data}",
            "Name its classes as the folders, in the order of its outputs: --classes FILE",
        )
    return places[name]


def _write_saliency(
    network: OnnxNetwork, normalisation: Normalisation, onnx: Path, source: Any, licence: str, *, force: bool
) -> Bundle:
    """Write a saliency model: `mask` is its plane as 0 to 255, `occupancy` what of it is above a half."""
    shape = network.output.shape[1:]
    plane = [length for length in shape if length != 1]
    if len(plane) != 2 or len(shape) > 3:
        raise BundleError(
            f"The output of {network.file} is {list(network.output.shape)}, not one plane an image",
            "Name another with --output-name.",
        )
    images = drawn_images(network.side, network.side)
    reference = network.reference(images, normalisation).reshape(len(images), *plane)
    scores = reference.min() < 0 or reference.max() > 1
    probabilities = 1 / (1 + np.exp(-reference)) if scores else reference
    builder = network.from_pixels(normalisation, network.output.name)
    planes = builder.node("Reshape", network.output.name, builder.constant([0, *plane], np.int64))
    planes = builder.node("Sigmoid", planes) if scores else planes
    inside = builder.cast(builder.node("Greater", planes, builder.constant(0.5)), np.float32)
    builder.node("ReduceMean", inside, axes=[1, 2], keepdims=0, output="occupancy")
    grey = builder.node("Round", builder.node("Mul", planes, builder.constant(255.0)))
    builder.cast(grey, np.uint8, output="mask")
    mask = TensorSpec("mask", "uint8", ("batch", *plane))
    model = builder.model(
        network.file.stem, [network.images], [mask, TensorSpec("occupancy", "float32", ("batch",))]
    )
    try:
        found = run_model(serialise(model), {"images": images})
    except EngineError as error:
        raise _one_at_a_time(network) from error
    parity = compare(found, probabilities)
    if not force:
        check_parity(onnx.stem, parity, TOLERANCES)
    bundle = bundle_of(
        model,
        onnx,
        "foreground",
        preprocessing=network.preprocessing(normalisation),
        source={**source, "sigmoid_added": bool(scores)},
        licence=licence,
        parity=parity,
    )
    return write_bundle(bundle, serialise(model))


def _one_at_a_time(network: OnnxNetwork) -> BundleError:
    return BundleError(
        f"{network.file} takes single images alone, and bundles take several",
        "Export it again with a dynamic batch axis.",
    )
